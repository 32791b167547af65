"""Known factors: the drawn digits have the ones that they say, and probes read what a code holds of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from diffrep.data import load
from diffrep.data.factors import _drawn, digits_factors, draw
from diffrep.data.reading import Reading


@pytest.fixture(scope="module")
def splits():
    return load("digits-factors")


def pictures(examples, most=400):
    """(N, 3, 16, 16) in [0, 1]."""
    return (examples.batch(examples.evenly(most)).x.numpy() + 1) / 2


def of(examples, name, most=400):
    return examples.factors[name][examples.evenly(most).numpy()]


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


def test_factors_are_spread_over_the_ranges_that_are_stated(splits):
    """Of 5,000 even draws the ends lie within a thousandth."""
    ranges = {"stroke": (1.3, 1.9), "hue": (0.0, 2 / 3), "background": (0.0, 0.08)}
    for name, (low, high) in ranges.items():
        values, room = splits.train.factors[name], 2e-3 * (high - low)
        assert low <= values.min() < low + room and high - room < values.max() <= high


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
    kept = digits_factors(Reading())
    assert digits_factors(Reading()).factors is kept.factors
    np.random.seed(5)
    again = _drawn.__wrapped__()
    assert (again.pictures == _drawn().pictures).all()
    assert all((again.factors[name] == kept.factors[name]).all() for name in kept.factors)
    other = load("digits-factors", seed=1)
    assert other.test.fingerprint == splits.test.fingerprint  # the split is the set's own
