"""The input and the result of a probe."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypedDict, TypeVar

import numpy as np

Given = ParamSpec("Given")
Made = TypeVar("Made")
Split = tuple[np.ndarray, np.ndarray]  # features (N, d) and labels (N,) of a split; -1 is no label


class Result(TypedDict, total=False):
    """A score (`accuracy` or `r2`) on a test split, its standard error, on how many examples, and what was chosen.

    low, high: ends of the 95 % interval of an accuracy, Wilson's; over draws of a few labels `per_class` Student's t,
    and then sd is of the draws, test_se of the test examples. balanced: mean over classes of the accuracy on each.
    auroc: mean over classes of the area under the curve of one against the rest. examples: with a label. strength: of a
    penalty. k, metric, neighbours, alpha: of neighbours. epoch: at which training stopped. overlap: test examples
    that occur in training. no_probe: why there is no score; then there are no other entries.
    """

    accuracy: float
    balanced: float
    auroc: float
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


def quiet(measure: Callable[Given, Made]) -> Callable[Given, Made]:
    """The same without the warnings of libraries, which are of their arguments and not of a user's: what is to be said
    of a score stands beside it."""

    @functools.wraps(measure)
    def measured(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return measure(*args, **kwargs)

    return measured


def accuracy(
    predicted: np.ndarray,
    labels: np.ndarray,
    train_examples: int,
    protocol: str,
    chosen: Result,
    scores: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> Result:
    """The share of test examples (N,) that are predicted right, its error and interval, and what stands beside it.

    scores: (N, K), higher for likelier, of the K `classes`, rising; of two classes (N,) will do. None: no auroc.
    """
    share, count = float((predicted == labels).mean()), len(labels)
    low, high = wilson(share, count)
    beside: Result = {"balanced": balanced(predicted, labels)}
    if scores is not None and classes is not None:
        beside["auroc"] = auroc(scores, labels, classes)
    return {
        "accuracy": share,
        "se": error_of_share(share, count),
        "low": low,
        "high": high,
        **beside,
        "examples": count,
        "train_examples": train_examples,
        **chosen,
        "protocol": protocol,
    }


def error_of_share(share: float, examples: int, variance: float | None = None) -> float:
    """Half of Wilson's interval at one standard error, sqrt(v / n + 1 / 4 n^2) / (1 + 1 / n): never 0, unlike the
    standard error sqrt(v / n), which it comes to for many examples. nan of one example, which has none.

    variance: v of single examples, p (1 - p) where each is right or wrong.
    """
    if examples < 2:
        return math.nan
    of_mean = share * (1 - share) / examples if variance is None else variance / examples
    return math.sqrt(of_mean + 0.25 / examples**2) / (1 + 1 / examples)


def wilson(share: float, examples: int, z: float = 1.959964) -> tuple[float, float]:
    """The ends of the interval of a share p of n examples (Wilson 1927), at 95 %.

    All probabilities q with |p - q| <= z sqrt(q (1 - q) / n): (p + z^2 / 2 n -+ z sqrt(p (1 - p) / n + z^2 / 4 n^2))
    / (1 + z^2 / n).
    """
    share = min(max(share, 0.0), 1.0)  # a mean may be rounded to a hair above 1
    centre, half = (
        share + z**2 / (2 * examples),
        z * math.sqrt(share * (1 - share) / examples + z**2 / (4 * examples**2)),
    )
    scale = 1 + z**2 / examples
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def error_of(result: Result) -> float:
    """The error that stands beside a score: over draws of few labels, of the draws and of the test examples both."""
    error, of_test = result["se"], result.get("test_se", 0.0)
    return math.nan if error is None else math.hypot(error, of_test)  # a file has null for nan


def balanced(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the classes in `labels` (N,) of the share of each that is predicted right."""
    return float(np.mean([(predicted[labels == k] == k).mean() for k in np.unique(labels)]))


def auroc(scores: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """The mean over classes of the chance that one of it scores higher than one of the rest, a tie counting half.

    scores: see `accuracy`. Classes that `labels` (N,) do not hold, or hold alone, have none; nan where no class has.
    """
    from scipy.stats import rankdata

    if scores.ndim == 1:
        scores = np.stack([-scores, scores], 1)
    areas = []
    for column, name in zip(scores.T, classes, strict=True):
        own = labels == name
        ones, others = int(own.sum()), int((~own).sum())
        if ones and others:
            areas.append((rankdata(column)[own].sum() - ones * (ones + 1) / 2) / (ones * others))
    return float(np.mean(areas)) if areas else math.nan


def score(result: Result) -> float | None:
    """The accuracy or the R^2 of a result; None where there was no probe."""
    return result.get("accuracy", result.get("r2"))
