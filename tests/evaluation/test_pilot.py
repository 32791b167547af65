"""The bound by a pilot's plan: the same number as by plain levels, and errors that are what they say."""

import math

import numpy as np
import pytest
import torch

from diffrep.config import Settings, override
from diffrep.data import load
from diffrep.data.batches import batches
from diffrep.evaluation.bound import bound
from diffrep.evaluation.pilot import Plan
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from small import NARROW

SMALL = [*NARROW, "decoder.multipliers=[1,1]", "code.dim=4"]


@pytest.fixture(scope="module", params=["vae-vdm"])
def measured(request):
    """An untrained model of grey pictures, which are mostly background, and 200 of those."""
    generator = np.random.default_rng(0)
    x = np.where(generator.random((1000, 6, 6)) < 0.7, 0, generator.integers(0, 256, (1000, 6, 6))).astype(np.uint8)
    examples = load(x, valid=0.1, test=0.2).test
    model = build(override(Settings(), [f"method={request.param}", *SMALL]), Facts((1, 6, 6), 256))
    return model, examples


def plainly(model, examples, levels: int, seed: int) -> torch.Tensor:
    """(N,) the bound of each example at uniform noise levels, nothing taken off."""
    with torch.no_grad():
        chunks = batches(examples, 200, seed, torch.device("cpu"))
        return torch.cat([torch.stack([*model.bound(chunk, levels).values()]).sum(0) for chunk in chunks]).double()


@pytest.mark.long
def test_the_plan_changes_the_error_and_not_the_bound(measured):
    """Importance and a control variate leave the mean where it is: against 64 uniform levels for each example."""
    model, examples = measured
    apart = plainly(model, examples, 64, 1) - bound(model, examples, levels=8).total.double()
    assert abs(float(apart.mean())) < 4 * float(apart.std()) / math.sqrt(len(apart))


@pytest.mark.long
def test_the_error_of_monte_carlo_is_what_another_seed_would_say(measured):
    """Over seeds, the bound of the same examples scatters by the error that is stated, not by the sample's."""
    model, examples = measured
    found = [bound(model, examples, levels=2, seed=seed) for seed in range(12)]
    scatter = float(torch.tensor([float(b.total.double().mean()) for b in found]).double().std())
    stated = math.sqrt(sum(b.monte_carlo**2 for b in found) / len(found))
    assert 0.5 < scatter / stated < 1.7  # 12 seeds tell a standard deviation to a fifth; levels are stratified besides


def test_places_have_the_density_of_their_shares():
    """The weight of a place is one over its density: the weighted mean of any function is its plain mean."""
    plan = Plan(torch.tensor([0.1, 0.6, 0.3]), torch.zeros(3, 0), (), 0.0, 0.0, 1)
    position, weight = plan.place((torch.arange(30_000) + 0.5) / 30_000)
    assert float((weight * position**2).mean()) == pytest.approx(1 / 3, abs=1e-3)
    assert float((position < 1 / 3).float().mean()) == pytest.approx(0.1, abs=1e-3)
    assert bool((position.diff() >= 0).all()) and float(position.min()) >= 0 and float(position.max()) <= 1
