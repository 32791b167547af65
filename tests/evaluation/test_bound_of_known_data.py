"""The bound where each example's -log p(x) is known: six patterns of unlike probability, and the exact denoiser.

The mean diffusion loss of the exact denoiser over the whole noise axis is -log p(x) of each example by itself, and the
ends cost nothing here: importance, the control variate and every stated error are held to that.
"""

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import LinearGamma
from diffrep.denoising.parameterisations import Marginal
from diffrep.evaluation.bound import bound
from diffrep.evaluation.pilot import pilot
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.step_terms import denoise
from oracles import examples_of

BINS, SHAPE = 16, (1, 2, 4)
SHARES = np.array([0.4, 0.25, 0.15, 0.1, 0.07, 0.03])
PATTERNS = np.random.default_rng(0).integers(0, BINS, (6, *SHAPE))


class Exact(nn.Module):
    """E[x | x_t] of the patterns, as the residual that `Marginal` asks for; `answer` (one) makes it wrong."""

    def __init__(self, answer: float):
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))
        self.patterns = torch.tensor(2 * (PATTERNS + 0.5) / BINS - 1).float().flatten(1)
        self.log_shares = torch.tensor(SHARES).log().float()

    def forward(self, x_t, log_snr, z=None, extra=None, drop=None):
        alpha, sigma = (torch.sigmoid(k * log_snr).sqrt()[:, None, None] for k in (1, -1))
        energy = -0.5 * (((x_t.flatten(1)[:, None] - alpha * self.patterns) / sigma) ** 2).sum(-1)
        x = (torch.softmax(energy + self.log_shares, 1) @ self.patterns).view_as(x_t)
        mean, spread = extra.chunk(2, 1)
        return self.answer * (x - mean) / spread.clamp(min=1e-12)


@cache
def model(answer: float = 1.0) -> DiffusionModel:
    histogram = torch.zeros(1, BINS)
    for share, pattern in zip(SHARES, PATTERNS, strict=True):
        histogram += 1000 * share * torch.bincount(torch.tensor(pattern.flatten()), minlength=BINS)
    known = Marginal(1, BINS, histogram)
    control = known.alone(torch.tensor([13.3, -12.0]))
    known.alone = lambda ends: control  # the same for every bound below, and slow to make
    denoiser = Denoiser(Exact(answer), LinearGamma(-13.3, 12.0), known)
    return DiffusionModel(SHAPE, BINS, denoiser, Objective({"denoising": denoise}, Levels(likelihood)))


def drawn(n: int, seed: int):
    """n examples, and -log p(x) of each."""
    which = np.random.default_rng(seed).choice(6, n, p=SHARES)
    return examples_of(PATTERNS[which].astype(np.uint8), BINS), torch.tensor(-np.log(SHARES[which]))


def test_the_bound_of_each_example_is_its_information():
    """Over seeds and over equal examples: importance and control variate move no pattern's mean."""
    examples, truth = drawn(200, 0)
    found = torch.stack([bound(model(), examples, levels=4, seed=seed).total.double() for seed in range(5)])
    for value in truth.unique():
        off = (found - truth)[:, truth == value].flatten()
        assert abs(float(off.mean())) < 4.5 * float(off.std()) / math.sqrt(len(off)), float(value)


@pytest.mark.slow
@pytest.mark.parametrize("n, levels", [(3, 2), (200, 8)])
def test_the_error_of_monte_carlo_is_that_of_other_seeds(n, levels):
    """A split of three is looked at with a plan of its own, not with one that fits the noise of a few draws."""
    examples, truth = drawn(n, 1)
    found = [bound(model(), examples, levels=levels, seed=seed) for seed in range(10)]
    off = np.array([float(b.total.double().mean() - truth.mean()) for b in found])
    stated = math.sqrt(np.mean([b.monte_carlo**2 for b in found]))
    assert abs(off.mean()) < 4 * stated / math.sqrt(len(off))
    assert 0.35 < off.std(ddof=1) / stated < 1.9  # ten seeds; levels are stratified besides, which the error is not


@pytest.mark.slow
def test_few_examples_that_scatter_little_lower_no_error():
    """Three examples are sometimes alike by chance: the error of Monte Carlo stays that of the plan, and is the least
    that the whole error can be."""
    examples, _ = drawn(3, 1)
    for seed in range(4):
        plan, found = pilot(model(), examples, torch.device("cpu"), seed), bound(model(), examples, levels=2, seed=seed)
        assert found.monte_carlo == pytest.approx(math.sqrt((plan.variance / 2 + plan.rest) / 3))
        assert found.measured_error >= found.monte_carlo


@pytest.mark.long
def test_the_error_of_the_sample_is_that_of_other_examples():
    """Two splits of 120 and two seeds, twenty times: their difference is what both errors together say, and each is
    within its own error of the entropy."""
    entropy = -(SHARES * np.log(SHARES)).sum()
    bits = math.prod(SHAPE) * math.log(2)
    off, errors = [], []
    for seed in range(40):
        said = bound(model(), drawn(120, 100 + seed)[0], levels=2, seed=seed).summary()
        off.append(said["bits_per_dim"] * bits - entropy)
        errors.append(said["bits_per_dim_se"] * bits)
        assert said["bits_per_dim_se"] ** 2 == pytest.approx(said["sample_se"] ** 2 + said["monte_carlo_se"] ** 2)
    off, errors = np.array(off), np.array(errors)
    apart = (off[::2] - off[1::2]) / np.sqrt(errors[::2] ** 2 + errors[1::2] ** 2)
    assert 0.6 < apart.std() < 1.45 and abs(apart.mean()) < 4 / math.sqrt(20)
    assert 0.75 < (off / errors).std() < 1.3 and abs((off / errors).mean()) < 4 / math.sqrt(40)


def test_the_error_of_the_sample_is_the_deviation_of_what_the_examples_cost():
    """With so many levels that the noise is a small part: that of -log p of the examples, which their shares give."""
    examples, truth = drawn(120, 3)
    bits = math.prod(SHAPE) * math.log(2)
    said = [bound(model(), examples, levels=64, seed=seed).summary()["sample_se"] * bits for seed in range(2)]
    assert np.mean(said) == pytest.approx(float(truth.std()) / math.sqrt(120), rel=0.15)


def test_a_wrong_denoiser_costs_more():
    """The bound lies above the information of the data, and by how much does not depend on the plan."""
    examples, truth = drawn(200, 2)
    found = bound(model(0.8), examples, levels=16)
    assert float(found.total.double().mean() - truth.mean()) > 4 * found.monte_carlo
