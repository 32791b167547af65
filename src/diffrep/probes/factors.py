"""How well a simple model predicts each factor from codes. Arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from diffrep.errors import UserError
from diffrep.probes import linear
from diffrep.probes.result import Result, Split

CLASSES = 20  # a factor of whole numbers with more values is a quantity

Factors = Mapping[str, np.ndarray]  # name -> column (N,)
CodesAndFactors = tuple[np.ndarray, Factors]  # codes (N, d) of a split, and the factors of its examples


def probe_factors(train: CodesAndFactors, valid: CodesAndFactors, test: CodesAndFactors) -> dict[str, Result]:
    """Name -> the result of its probe: `linear.linear` (accuracy) or `linear.regression` (R^2), protocol and all.

    A column of words, or of at most 20 different whole numbers, is discrete; other numbers are continuous. A discrete
    factor is probed on the values that occur in training; where a factor cannot be probed, such as words that training
    and test do not share, "no_probe" says why. Give an angle as two columns, its sine and its cosine.
    """
    results: dict[str, Result] = {}
    codes = [split[0] for split in (train, valid, test)]
    for name in train[1]:
        columns = [split[1][name] for split in (train, valid, test)]
        try:
            if is_discrete(columns[0]):
                results[name] = linear.linear(*_paired(codes, _classes(columns)))
            else:
                results[name] = linear.regression(*_paired(codes, [c.astype(np.float64) for c in columns]))
        except UserError as no_probe:
            results[name] = {"no_probe": str(no_probe)}
    return results


def is_discrete(column: np.ndarray) -> bool:
    """Is a factor (N,) a class rather than a quantity: words, truth values, or at most 20 different whole numbers?

    Whole numbers may be stored as floating point; NaN is a missing value.
    """
    if column.dtype.kind not in "fiu":
        return True
    values = np.unique(column[np.isfinite(column)])
    return len(values) <= CLASSES and bool((values == np.round(values)).all())


def _classes(columns: list[np.ndarray]) -> list[np.ndarray]:
    """Each value as its index among those of training; -1, no label, for other values and missing ones."""
    values = [v for v in np.unique(columns[0]).tolist() if v != "" and v == v]  # neither a hole nor NaN
    place = {value: k for k, value in enumerate(values)}
    return [np.array([place.get(value, -1) for value in column.tolist()]) for column in columns]


def _paired(codes: list[np.ndarray], targets: list[np.ndarray]) -> tuple[Split, Split, Split]:
    """Codes with their targets, for train, valid and test."""
    train, valid, test = zip(codes, targets, strict=True)
    return train, valid, test
