"""Probes of factors: what codes hold is read, and which columns are classes."""

import math

import numpy as np
import pytest

from diffrep.probes.factors import is_discrete, probe_factors
from diffrep.probes.result import score


def known(count, seed, angle):
    """Codes (N, 4) and factors that are a known function of them, or of nothing."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(count, 4))
    z[:, 2:] = np.stack([np.sin(angle), np.cos(angle)], 1)
    noise = random.normal(size=count)
    return z, {
        "side": (z[:, 0] > 0).astype(np.int64),
        "size": 3 * z[:, 1] + noise,
        "chance": random.normal(size=count),
        "frame": angle,
        "sine": np.sin(angle),
        "name": np.array([f"row {seed} {i}" for i in range(count)]),
    }


def test_probes_read_what_codes_hold():
    """y = 3 z + n has R^2 = 9 / 10, the sine of an angle that codes hold 1, a factor of chance 0."""
    random = np.random.default_rng(0)
    parts = [known(n, k, random.uniform(0, 2 * math.pi, n)) for k, n in enumerate((4000, 1000, 4000))]
    results = probe_factors(*parts)
    assert score(results["side"]) > 0.97
    assert score(results["size"]) == pytest.approx(0.9, abs=4 * results["size"]["se"])
    assert score(results["chance"]) == pytest.approx(0, abs=0.01)
    assert score(results["sine"]) == pytest.approx(1, abs=1e-6)
    assert score(results["name"]) is None and "label" in results["name"]["no_probe"]  # no word is in two splits
    assert score(results["frame"]) < 0.9  # as a plain number the angle has a seam, which no line crosses


def test_whole_numbers_and_words_are_classes():
    """At most 20 different whole numbers are classes, however they are stored; more of them, or fractions, are a
    quantity, for disentanglement as for probes."""
    assert is_discrete(np.arange(20)) and not is_discrete(np.arange(21)) and not is_discrete(np.arange(3) / 2)
    assert is_discrete(np.array(["a", "b"])) and is_discrete(np.array([True, False]))
    assert is_discrete(np.array([0.0, 3.0, np.nan])) and not is_discrete(np.array([0.0, 0.5, np.nan]))
