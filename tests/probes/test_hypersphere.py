"""Alignment and uniformity against integrals over the sphere."""

import math

import numpy as np
import pytest
from scipy.special import hyp2f1, ive

from diffrep.errors import UserError
from diffrep.probes.hypersphere import alignment, uniformity


@pytest.mark.parametrize("d, t", [(2, 2.0), (3, 2.0), (3, 0.5), (8, 2.0)])
def test_uniformity_of_an_even_spread_is_the_integral(d, t):
    """E exp(2t cos - 2t) over two uniform directions = Gamma(d/2) I_nu(2t) e^(-2t) / t^nu, nu = d/2 - 1; on the circle
    that is I_0(2t) e^(-2t). Normal draws have uniform directions, whatever their length."""
    x = np.random.default_rng(d).normal(size=(3000, d)) * np.random.default_rng(1).uniform(0.1, 9, (3000, 1))
    nu = d / 2 - 1
    assert uniformity(x, t) == pytest.approx(math.log(math.gamma(d / 2) * ive(nu, 2 * t) / t**nu), abs=0.02)


def test_uniformity_on_a_regular_polygon_is_its_sum():
    """n corners: the mean over the n - 1 chords from one corner, whose squares are 2 - 2 cos."""
    n, t = 7, 2.0
    angles = 2 * np.pi * np.arange(n) / n
    chords = 2 - 2 * np.cos(angles[1:])
    corners = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert uniformity(5 * corners, t) == pytest.approx(np.log(np.exp(-t * chords).mean()))
    assert uniformity(np.ones((5, 3)), t) == pytest.approx(0)  # all in one place: as uneven as can be


def test_uniformity_is_the_same_in_any_chunks():
    """The last chunk is smaller than the others, and counts."""
    x = np.random.default_rng(0).normal(size=(103, 4))
    assert uniformity(x, chunk=20) == pytest.approx(uniformity(x, chunk=1000), rel=1e-12)


@pytest.mark.parametrize("d, rho", [(2, 0.8), (5, 0.5), (5, 0.0), (5, -0.5)])
def test_alignment_of_gaussian_pairs_is_closed(d, rho):
    """For normal x, y of correlation rho, E cos = rho 2/d (Gamma((d+1)/2) / Gamma(d/2))^2 2F1(1/2, 1/2; d/2+1; rho^2),
    and |u - v|^2 = 2 - 2 cos."""
    x, e = np.random.default_rng(d).normal(size=(2, 40_000, d))
    cos = 2 / d * (math.gamma((d + 1) / 2) / math.gamma(d / 2)) ** 2 * rho * hyp2f1(0.5, 0.5, d / 2 + 1, rho**2)
    assert alignment(x, rho * x + math.sqrt(1 - rho**2) * e) == pytest.approx(2 - 2 * cos, abs=0.02)


def test_alignment_knows_directions_alone():
    """Any lengths; opposite ends of the sphere are two apart, to the power alpha."""
    x = np.random.default_rng(0).normal(size=(50, 3))
    assert alignment(x, 7 * x) == pytest.approx(0, abs=1e-12)
    assert alignment(x, -x) == pytest.approx(4) and alignment(x, -x, alpha=1) == pytest.approx(2)


def test_a_code_without_direction_is_a_mistake():
    """Zero has no direction, and one example no pair."""
    with pytest.raises(UserError, match="direction"):
        alignment(np.zeros((3, 2)), np.ones((3, 2)))
    with pytest.raises(UserError, match="two"):
        uniformity(np.ones((1, 2)))
