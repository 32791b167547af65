"""Probes: what a simple classifier reads from features. Arrays in, numbers out."""

from __future__ import annotations

import math
import warnings

import numpy as np

from diffrep.errors import UserError

LINEAR = "linear-1"  # standardised by train; C chosen on validation; refitted on train alone; full test split
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)


def linear(
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    most: int = 20_000,
) -> dict[str, float | int | str]:
    """Multinomial logistic regression on features (N, d) with labels (N,); -1 is no label. Accuracy and its error.

    The strength of the L2 penalty is chosen on the validation split alone; the test split is used once, whole. At most
    `most` training examples (the first ones) are fitted. UserError where a split has no label or train one class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression  # here, since it takes a second to import
    from sklearn.preprocessing import StandardScaler

    (x, y), (x_valid, y_valid), (x_test, y_test) = (_labelled(*part) for part in (train, valid, test))
    x, y = x[:most], y[:most]
    if len(np.unique(y)) < 2:
        raise UserError(f"a probe needs labels of two classes at least in the training split, got {len(np.unique(y))}")
    if not len(y_valid) or not len(y_test):
        raise UserError(
            "a probe needs labelled examples in the validation and the test split; give them a larger share"
        )
    scaler = StandardScaler().fit(x)
    x, x_valid, x_test = (scaler.transform(part) for part in (x, x_valid, x_test))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last iterate is a fit like any other: validation judges it
        fits = [LogisticRegression(C=c, max_iter=1000).fit(x, y) for c in STRENGTHS]
    scores = [fit.score(x_valid, y_valid) for fit in fits]
    best = int(np.argmax(scores))
    accuracy = float(fits[best].score(x_test, y_test))
    return {
        "accuracy": accuracy,
        "se": math.sqrt(accuracy * (1 - accuracy) / len(y_test)),
        "examples": len(y_test),
        "train_examples": len(y),
        "strength": STRENGTHS[best],
        "protocol": LINEAR,
    }


def _labelled(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = labels >= 0
    return np.asarray(features, dtype=np.float64)[known], labels[known]
