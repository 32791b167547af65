"""The input and the result of a probe."""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np

Split = tuple[np.ndarray, np.ndarray]  # features (N, d) and labels (N,) of a split; -1 is no label


class Result(TypedDict, total=False):
    """A score (`accuracy` or `r2`) on a test split, its standard error, on how many examples, and what was chosen.

    strength: of a penalty. k, metric, neighbours, alpha: of neighbours. epoch: at which training stopped. Over draws of
    a few labels `per_class`: low and high are the ends of the 95 % interval, sd is of the draws, test_se of the test
    examples. overlap: test examples that occur in training. no_probe: why there is no score; then there are no other
    entries.
    """

    accuracy: float
    r2: float
    se: float
    low: float
    high: float
    sd: float
    test_se: float
    draws: int
    per_class: int
    examples: int
    train_examples: int
    strength: float
    k: int
    metric: str
    neighbours: int
    alpha: float
    epoch: int
    seed: int
    protocol: str
    overlap: int
    no_probe: str


def accuracy(predicted: np.ndarray, labels: np.ndarray, train_examples: int, protocol: str, chosen: Result) -> Result:
    """The share of test examples (N,) that are predicted right, and the standard error of a share."""
    share = float((predicted == labels).mean())
    return {
        "accuracy": share,
        "se": error_of_share(share, len(labels)),
        "examples": len(labels),
        "train_examples": train_examples,
        **chosen,
        "protocol": protocol,
    }


def error_of_share(share: float, examples: int) -> float:
    """The standard error of a share of so many examples, sqrt(p (1 - p) / n); nan of one, which has none."""
    return math.sqrt(share * (1 - share) / examples) if examples > 1 else math.nan


def score(result: Result) -> float | None:
    """The accuracy or the R^2 of a result; None where there was no probe."""
    return result.get("accuracy", result.get("r2"))
