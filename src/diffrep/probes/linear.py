"""Probes: simple models of labels given features, chosen on validation. Arrays in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from diffrep.amounts import amount
from diffrep.data.examples import evenly
from diffrep.errors import UserError
from diffrep.probes.logistic import Logistic, path
from diffrep.probes.result import Result, Split, accuracy, quiet
from diffrep.progress import Part, unsaid

LINEAR = "linear-2"  # standardised by train; C chosen on validation along a path of fits; full test split
SVM = "svm-1"  # standardised by train; Gaussian kernel of width "scale"; C chosen on validation; full test split
REGRESSION = "regression-1"  # standardised by train; alpha chosen on validation by R^2; full test split
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
SVM_STRENGTHS = (0.1, 1.0, 10.0, 100.0)
ALPHAS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)


@quiet
def linear(train: Split, valid: Split, test: Split, most: int = 20_000, tell: Part = unsaid) -> Result:
    """Multinomial logistic regression on features (N, d) with labels (N,); -1 is no label. Accuracy and its error.

    The strength of the L2 penalty is chosen on the validation split alone; the test split is used once, whole. At most
    `most` training examples (the first ones) are fitted. UserError where a split has no label or train one class.
    """
    train, valid, test = labelled(train, valid, test)
    train, valid, test = standardised((train[0][:most], train[1][:most]), valid, test)
    place, fit = logistic(train, valid, tell)
    return judged(fit, test, len(train[1]), LINEAR, STRENGTHS[place])


@quiet
def logistic(train: Split, valid: Split, tell: Part = unsaid) -> tuple[int, Logistic]:
    """(place in STRENGTHS, fit): the logistic regression on standardised features that is best on validation."""
    return best(path(train, valid, STRENGTHS), valid, tell, len(STRENGTHS))


@quiet
def svm(train: Split, valid: Split, test: Split, most: int = 10_000, tell: Part = unsaid) -> Result:
    """Support vector machine with a Gaussian kernel (scikit-learn's SVC); C chosen on validation.

    Its time grows with the square of the training examples, so at most `most` evenly chosen ones are used. As `linear`.
    """
    from sklearn.svm import SVC

    train, valid, test = standardised(*labelled(train, valid, test, most))
    place, fit = best((SVC(C=c).fit(*train) for c in SVM_STRENGTHS), valid, tell, len(SVM_STRENGTHS))
    return judged(fit, test, len(train[1]), SVM, SVM_STRENGTHS[place])


def judged(fit: Any, test: Split, train_examples: int, protocol: str, strength: float) -> Result:
    """`accuracy` of a fitted classifier, with the methods of scikit-learn's, on the test split."""
    x, y = test
    scores = fit.decision_function(x)
    return accuracy(fit.predict(x), y, train_examples, protocol, {"strength": strength}, scores, fit.classes_)


@quiet
def regression(train: Split, valid: Split, test: Split, most: int = 20_000, tell: Part = unsaid) -> Result:
    """Ridge regression of a continuous factor (N,) on features (N, d); NaN is a missing value. R^2 on test, and its
    error.

    R^2 = 1 - sum (y - y_hat)^2 / sum (y - mean y)^2 over the test split. alpha is chosen on validation; at most `most`
    training examples, evenly chosen, are fitted. UserError where a split has fewer than two different values.
    """
    from sklearn.linear_model import Ridge

    train, valid, test = (with_target(split, np.isfinite(split[1])) for split in (train, valid, test))
    train = thinned(train, most)
    for name, (_, y) in (("training", train), ("validation", valid), ("test", test)):
        if len(y) < 2 or np.ptp(y) == 0:
            raise UserError(
                f"a regression needs different values in the {name} split, got {amount(len(y), 'example')} of one; give"
                " the split a larger share, or name another column"
            )
    train, valid, test = standardised(train, valid, test)
    place, fit = best((Ridge(alpha=alpha).fit(*train) for alpha in ALPHAS), valid, tell, len(ALPHAS))
    r2, error = explained(test[1], fit.predict(test[0]))
    return {
        "r2": r2,
        "se": error,
        "examples": len(test[1]),
        "train_examples": len(train[1]),
        "strength": ALPHAS[place],
        "protocol": REGRESSION,
    }


def explained(y: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """R^2 of predictions (N,) and its standard error, from the influence of each example on its two means."""
    residual, total = (y - predicted) ** 2, (y - y.mean()) ** 2
    lost = residual.mean() / total.mean()
    influence = (residual - lost * total) / total.mean()
    return float(1 - lost), float(influence.std() / math.sqrt(len(y)))


def labelled(train: Split, valid: Split, test: Split, most: int | None = None) -> tuple[Split, Split, Split]:
    """The examples that have a label, of train at most `most` of them, evenly chosen; features in float64.

    UserError where a split has none, where train has one class, or where features are not finite.
    """
    train, valid, test = (with_target(split, split[1] >= 0) for split in (train, valid, test))
    train = train if most is None else thinned(train, most)
    if (classes := len(np.unique(train[1]))) < 2:
        raise UserError(
            f"a probe needs labels of two classes at least in the training split, got {classes}: give data with more,"
            " or name other labels (--labels; in Python labels=)."
        )
    if not len(valid[1]) or not len(test[1]):
        raise UserError(
            "a probe needs labelled examples in the validation and the test split: give them a larger share."
        )
    return train, valid, test


def thinned(split: Split, most: int) -> Split:
    """At most `most` examples, from the first to the last: a split may lie in the order of its classes."""
    rows = evenly(np.arange(len(split[1])), most)
    return split[0][rows], split[1][rows]


def standardised(train: Split, *others: Split) -> tuple[Split, ...]:
    """Each feature shifted and scaled to mean 0 and standard deviation 1 over train, in every split."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train[0])
    return tuple((scaler.transform(x), y) for x, y in (train, *others))


def best(fits: Iterable, valid: Split, tell: Part = unsaid, of: int = 0) -> tuple[int, Any]:
    """(place, fit): the fit with the highest score on validation, the first of equals; only one is held in memory.

    tell: called after each fit with its number and `of`, the most that there are.
    """
    chosen, highest = None, -math.inf
    for place, fit in enumerate(fits):
        score = fit.score(*valid)
        tell(place + 1, of)
        if score > highest:
            chosen, highest = (place, fit), score
        if highest == 1:  # none can be better
            break
    assert chosen is not None
    return chosen


def with_target(split: Split, has: np.ndarray) -> Split:
    """The examples (N,) that have a label or a value, features in float64; UserError where these are not finite."""
    features = np.asarray(split[0], dtype=np.float64)[has]
    if not np.isfinite(features).all():
        raise UserError("a probe needs finite features and these hold NaN or infinite numbers; remove those examples")
    return features, split[1][has]
