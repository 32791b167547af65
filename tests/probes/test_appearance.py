"""What a picture shows of itself: rectangles have a known area, colour and shape, wherever they lie."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffrep.data import load
from diffrep.errors import UserError
from diffrep.probes.appearance import appearance

RED = (0.9, 0.2, 0.4)


def pictures(height, width, colour=RED, ground=(0.5, 0.6, 0.4), place=(3, 4), side=32):
    """(1, C, side, side) in [-1, 1]: a rectangle of a colour on a ground, both in [0, 1]."""
    x = np.empty((1, len(colour), side, side), np.float32)
    x[:] = np.array(ground)[:, None, None]
    x[0, :, place[0] : place[0] + height, place[1] : place[1] + width] = np.array(colour)[:, None, None]
    return 2 * x - 1


def uniform(n):
    """Standard deviation of n neighbouring whole numbers."""
    return math.sqrt((n * n - 1) / 12)


def test_a_rectangle_has_its_area_colour_and_shape():
    found = appearance(pictures(12, 5))
    expected = {"area": 60 / 1024, "intensity": 0.5, "aspect": math.log(uniform(12) / uniform(5)), "red_green": 0.7}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx([value], abs=1e-6), name


def test_place_and_ground_do_not_count():
    """Moved elsewhere, even to the border, and on another ground, the factors stay; turned round, the shape's sign."""
    first = appearance(pictures(12, 5))
    moved = appearance(pictures(12, 5, ground=(0.0, 0.0, 0.0), place=(0, 20)))
    for name in first:
        assert moved[name] == pytest.approx(first[name], abs=1e-6), name
    assert appearance(pictures(5, 12))["aspect"] == pytest.approx(-first["aspect"], abs=1e-6)


def test_a_thing_on_a_third_of_the_border_is_not_the_ground():
    """A quarter of the picture, along its whole left side: the median of the border is the ground, its mean is not."""
    assert appearance(pictures(32, 8, ground=(0.0, 0.0, 0.0), place=(0, 0)))["area"] == pytest.approx([0.25])


def test_a_shade_of_the_ground_does_not_stand_out():
    """Less than a tenth of full scale in each channel is ground; one channel that is further is enough."""
    faint = appearance(pictures(12, 5, colour=(0.59, 0.69, 0.31)))
    assert np.isnan(faint["intensity"]) and np.isnan(faint["area"]) and np.isnan(faint["aspect"])
    assert appearance(pictures(12, 5, colour=(0.61, 0.6, 0.4)))["area"] == pytest.approx([60 / 1024])
    assert np.isnan(appearance(pictures(1, 5))["aspect"])  # one row has no height to speak of


def test_grey_pictures_have_no_tint():
    assert list(appearance(pictures(6, 6, (1.0,), (0.0,)))) == ["area", "intensity", "aspect"]


def test_drawn_digits_show_their_hue():
    """A hue nearer to red than to green is more red than green, and the other way round."""
    test = load("digits-factors").test
    tint, hue = appearance(test.batch(torch.arange(len(test))).x.numpy())["red_green"], test.factors["hue"]
    assert (tint[hue < 0.12] > 0).all() and (tint[(hue > 0.2) & (hue < 0.45)] < 0).all()


def test_what_is_no_picture_is_a_mistake():
    for shape in ((9, 7), (9, 4, 8, 8), (9, 1, 2, 8)):  # a vector, RGBA, two rows
        with pytest.raises(UserError, match=r"grey or RGB pictures \(N, C, H, W\)"):
            appearance(np.zeros(shape, np.float32))
