"""A classifier for few labels: a code trained on all rows, and a linear head trained on those with a label."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import safetensors.torch
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import nn

from diffrep.estimators.encoder import DiffusionEncoder
from diffrep.evaluation.finetune import Classifier, encoder_of, finetune, frozen

ENOUGH = 50  # labels of each class from which on it is tried to train encoder and head together
HELD = 5  # one in so many labels is held out for that trial
AT_ONCE = 500  # rows that are classified at a time


class DiffusionClassifier(ClassifierMixin, BaseEstimator):
    """Classes from few labels: `encoder` is trained on all rows, a logistic regression on those with a label.

    encoder: a `DiffusionEncoder`, which is cloned; None: one with its defaults. strength: C of the logistic regression
    on standardised codes. finetune: train encoder and head together on the labels; "auto": where each class has 50
    labels, and only if that is better on a fifth of them that is held out. random_state: of an encoder that has none of
    its own.

    y: -1 (among words: None) is unlabelled, as in `sklearn.semi_supervised`. Fitted: encoder_, head_, tuned_
    (weights as bytes of safetensors; None where the head alone was trained), classes_, n_features_in_,
    feature_names_in_.
    """

    def __init__(self, encoder=None, *, strength=1.0, finetune="auto", random_state=None):
        self.encoder = encoder
        self.strength = strength
        self.finetune = finetune
        self.random_state = random_state

    def fit(self, X, y) -> DiffusionClassifier:
        """ValueError: no label, labels of one class alone, or y that are quantities. KeyboardInterrupt: Ctrl-C or
        SIGTERM.

        A fit that does not end, by an error or by Ctrl-C, leaves the estimator without a fit, even if it had one."""
        self.__dict__.pop("head_", None)
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None: give labels,"
                " -1 for rows that have none."
            )
        y = column_or_1d(y, warn=True)
        has_label = labelled(y)
        if not has_label.any():
            raise ValueError("y labels no row, expected labels of two classes at least: -1 and None are no labels.")
        values = y[has_label] if y.dtype.kind != "O" else np.array(y[has_label].tolist())
        check_classification_targets(values)
        encoder = DiffusionEncoder() if self.encoder is None else clone(self.encoder)
        if encoder.random_state is None:
            encoder.set_params(random_state=self.random_state)
        classes, numbers = np.unique(values, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y has one class, {classes[0]!r}, expected two classes at least")
        marks = np.full(len(y), -1)
        marks[has_label] = numbers
        self.encoder_ = encoder.fit(X, marks)
        self.n_features_in_ = self.encoder_.n_features_in_
        if hasattr(self.encoder_, "feature_names_in_"):
            self.feature_names_in_ = self.encoder_.feature_names_in_
        codes = self.encoder_.transform(X)[has_label]
        head = LogisticRegression(C=self.strength, max_iter=1000)
        fitted = make_pipeline(StandardScaler(), head).fit(codes.astype(np.float64), numbers)
        self.classes_ = classes
        self.tuned_ = self._tuned(X, np.flatnonzero(has_label), numbers)
        self.head_ = fitted  # last: it says that the estimator is fitted
        return self

    def decision_function(self, X) -> np.ndarray:
        """Scores (N, classes), of the second class alone (N,) where there are two."""
        check_is_fitted(self)
        if self.tuned_ is None:
            return self.head_.decision_function(self._codes(X))
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X) -> np.ndarray:
        """p(class | row), (N, classes)."""
        check_is_fitted(self)
        if self.tuned_ is None:
            return self.head_.predict_proba(self._codes(X))
        return softmax(self._scores(X), 1)

    def predict(self, X) -> np.ndarray:
        """The most probable class of each row, (N,)."""
        check_is_fitted(self)
        if self.tuned_ is None:
            return self.classes_[self.head_.predict(self._codes(X))]
        return self.classes_[self._scores(X).argmax(1)]

    def _codes(self, X: Any) -> np.ndarray:
        return self.encoder_.transform(X).astype(np.float64)

    def _tuned(self, X: Any, rows: np.ndarray, numbers: np.ndarray) -> bytes | None:
        """Weights of encoder and head, trained together on the labelled rows; None where they are not to be."""
        if not self.finetune or (self.finetune == "auto" and np.bincount(numbers).min() < ENOUGH):
            return None
        model, examples = self.encoder_.run_.model, self.encoder_._examples(X)
        x, y = examples.batch(torch.from_numpy(rows)).x.to(self.encoder_.run_.device), torch.from_numpy(numbers)
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
        held, few = (part.to(x.device) for part in order.tensor_split([len(y) // HELD]))
        y, encoder = y.to(x.device), encoder_of(model)
        if self.finetune == "auto":
            plain, tuned = (make(encoder, (x[few], y[few]), x).eval() for make in (frozen, finetune))
            with torch.no_grad():
                right = [(net(x[held]).argmax(1) == y[held]).double().mean() for net in (plain, tuned)]
            if right[1] <= right[0]:
                return None
        return safetensors.torch.save(finetune(encoder, (x, y), x).state_dict())

    @torch.no_grad()
    def _scores(self, X: Any) -> np.ndarray:
        """(N, classes) of the trained network, in double precision, so that a row's do not depend on the others."""
        run = self.encoder_.run_
        assert self.tuned_ is not None, "there is nothing to score with"
        weights = safetensors.torch.load(self.tuned_)
        classes, dim = weights["head.weight"].shape
        encoder = copy.deepcopy(encoder_of(run.model))
        whole = Classifier(encoder, weights["centre"], weights["scale"], nn.Linear(dim, classes))
        whole.load_state_dict(weights)
        whole = whole.to(run.device).double().eval()
        examples = self.encoder_._examples(X)
        parts = torch.arange(len(examples)).split(AT_ONCE)
        return torch.cat([whole(examples.batch(p).x.to(run.device).double()).cpu() for p in parts]).numpy()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "head_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def labelled(y: np.ndarray) -> np.ndarray:
    """(N,) which rows have a label: not -1, None, NaN or an empty word."""
    if y.dtype.kind in "OSU":
        return np.array([v is not None and v == v and v != "" and v != -1 for v in y.tolist()], bool)
    return (y != -1) & ~np.isnan(y.astype(float))
