"""A classifier for few labels: a code trained on all rows, and a linear head trained on those with a label."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from diffrep.estimators.encoder import DiffusionEncoder


class DiffusionClassifier(ClassifierMixin, BaseEstimator):
    """Classes from few labels: `encoder` is trained on all rows, a logistic regression on those with a label.

    encoder: a `DiffusionEncoder`, which is cloned; None: one with its defaults. strength: C of the logistic regression
    on standardised codes. random_state: of an encoder that has none of its own.

    y: -1 (among words: None) is unlabelled, as in `sklearn.semi_supervised`. Fitted: encoder_, head_, classes_,
    n_features_in_, feature_names_in_.
    """

    def __init__(self, encoder=None, *, strength=1.0, random_state=None):
        self.encoder = encoder
        self.strength = strength
        self.random_state = random_state

    def fit(self, X, y) -> DiffusionClassifier:
        """ValueError: no label, labels of one class alone, or y that are quantities."""
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None: give labels,"
                " -1 for rows that have none."
            )
        y = column_or_1d(y, warn=True)
        has_label = labelled(y)
        if not has_label.any():
            raise ValueError("y labels no row, expected labels of two classes at least")
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
        self.head_ = make_pipeline(StandardScaler(), head).fit(codes.astype(np.float64), numbers)
        self.classes_ = classes
        return self

    def decision_function(self, X) -> np.ndarray:
        """Scores (N, classes), of the second class alone (N,) where there are two."""
        codes = self._codes(X)
        return self.head_.decision_function(codes)

    def predict_proba(self, X) -> np.ndarray:
        """p(class | row), (N, classes)."""
        codes = self._codes(X)
        return self.head_.predict_proba(codes)

    def predict(self, X) -> np.ndarray:
        """The most probable class of each row, (N,)."""
        codes = self._codes(X)
        return self.classes_[self.head_.predict(codes)]

    def _codes(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self.encoder_.transform(X).astype(np.float64)

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
