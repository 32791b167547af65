"""Known factors: the drawn digits have the ones that they say, and probes read what a code holds of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits

from diffrep.data import load
from diffrep.data.factors import digits_factors, draw
from diffrep.probes.factors import is_discrete, probe_factors, score


@pytest.fixture(scope="module")
def splits():
    return load("digits-factors")


def pictures(examples, most=400):
    """(N, 3, 16, 16) in [0, 1]."""
    return (examples.batch(examples.spread(most)).x.numpy() + 1) / 2


def of(examples, name, most=400):
    return examples.factors[name][examples.spread(most).numpy()]


def test_no_digit_is_in_two_splits(splits):
    """All drawings of a source digit lie in one split, and the label is the class of that digit."""
    parts = (splits.train, splits.valid, splits.test)
    sources = [{id.split()[1] for id in part.ids} for part in parts]
    assert sum(map(len, sources)) == len(set.union(*sources)) == 1797
    assert [round(len(part) / 7188, 1) for part in parts] == [0.7, 0.1, 0.2]
    truth = load_digits().target
    for part in parts:
        assert [int(truth[int(id.split()[1])]) for id in part.ids] == part.labels.tolist()
        assert (part.shape, part.bins) == ((3, 16, 16), 256)


def test_the_corner_is_the_background(splits):
    """No pen reaches the corners: their three channels are the background's grey, to a level of 8 bits."""
    corner = pictures(splits.test)[:, :, 0, 0]
    assert np.abs(corner - of(splits.test, "background")[:, None]).max() < 1 / 255


def test_the_brightest_pixel_has_the_hue(splits):
    """Where the ink covers a pixel its colour's hue, by the standard library's colour model, is the factor."""
    import colorsys

    x, hue = pictures(splits.test), of(splits.test, "hue")
    flat = x.reshape(len(x), 3, -1)
    place = flat.sum(1).argmax(1)
    colours = flat[np.arange(len(x)), :, place]
    found = np.array([colorsys.rgb_to_hsv(*map(float, colour))[0] for colour in colours])
    assert np.abs(found - hue).max() < 0.02


def test_a_wider_pen_leaves_more_ink():
    """Same digit, same colours: a straight bar is as wide as the pen, and its ink grows by what the pen does.

    A bar of the source along all rows has a ridge of one column (two where its grey is even), 24 of the 32 fine rows.
    """
    bar = np.zeros((1, 8, 8), np.int64)
    bar[:, :, 3] = 16
    widths = np.array([1.0, 1.5, 2.0])
    still = {"hue": np.zeros(3), "background": np.zeros(3)}
    x = draw(bar, np.zeros(3, int), stroke=widths, **still)[:, 0] / 255  # red: the channel that is not tinted
    across = x[:, 8].sum(1)  # the middle row: the width in pixels
    assert np.diff(across) == pytest.approx(np.diff(widths), abs=0.02)


def test_drawn_once_and_the_same(splits):
    """Another call draws nothing anew, and neither global random numbers nor a fresh drawing change a pixel."""
    kept = digits_factors()
    assert digits_factors() is kept
    np.random.seed(5)
    again = digits_factors.__wrapped__()
    assert (again.values.digests == kept.values.digests).all()
    assert all((again.factors[name] == kept.factors[name]).all() for name in kept.factors)
    other = load("digits-factors", seed=1)
    assert other.test.fingerprint == splits.test.fingerprint  # the split is the set's own


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
    """At most 20 different whole numbers are classes; more of them, or fractions, are a quantity."""
    assert is_discrete(np.arange(20)) and not is_discrete(np.arange(21)) and not is_discrete(np.arange(3) / 2)
    assert is_discrete(np.array(["a", "b"])) and is_discrete(np.array([True, False]))
