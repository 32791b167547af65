"""The bound by a pilot's plan: the same number as by plain levels, and errors that are what they say."""

import math

import numpy as np
import pytest
import torch

from diffrep.config import Settings, override
from diffrep.data import load
from diffrep.data.batches import batches
from diffrep.denoising.alone import Alone
from diffrep.evaluation.bound import bound
from diffrep.evaluation.pilot import Plan, _slopes
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.models.diffusion_decoder import DiffusionDecoder
from diffrep.shapes import Batch
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


class Control(Alone):
    """Its loss depends on x and on the noise level, its mean on the slopes; k tells two of them apart."""

    def __init__(self, k: int):
        self.k = k

    def loss(self, x, y, log_snr):
        return x.flatten(1).sum(1) + self.k * log_snr

    def mean(self, x, slopes):
        return self.k * (slopes * torch.tensor([1.0, 10.0])).sum().expand(len(x))


class Decoder(DiffusionDecoder):
    """Its loss is that of two controls times their slopes in the two halves of the axis."""

    def __init__(self, controls, slopes):
        self.__dict__.update(controls=controls, slopes=slopes)

    def loss_at(self, batch, position, with_code=True, code=None):
        log_snr = -3 * position
        nats = torch.stack([control.loss(batch.x, batch.x, log_snr) for control in self.controls], 1)
        return (self.slopes[(position >= 0.5).long()] * nats).sum(1), batch.x, log_snr


def test_each_control_has_its_own_slope_and_its_own_mean():
    """A loss that is the controls times their slopes leaves nothing; their means are added with the same slopes."""
    slopes, controls = torch.tensor([[0.5, 2.0], [1.5, 0.25]]), [Control(1), Control(100)]
    plan = Plan(torch.tensor([0.75, 0.25]), slopes, controls, 0.0, 0.0, 1)
    batch = Batch(torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(5))
    left = plan.loss_at(Decoder(controls, slopes), batch, (torch.arange(5) + 0.5) / 5, None)
    torch.testing.assert_close(left, torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(plan.control_mean(batch), torch.full((5,), (0.5 + 15.0) + 100 * (2.0 + 2.5)))


def test_slopes_of_two_controls_are_those_of_least_squares():
    """Controls that correlate are fitted together; a stretch without a control's loss has no slope of it."""
    generator = torch.Generator().manual_seed(0)
    common, a, b, noise = torch.randn(4, 500, 2, generator=generator, dtype=torch.float64)
    first, second = common + a, common + b
    second[:, 1] = 0
    f = 0.9 * first + 0.4 * second + noise
    found = _slopes(f, [first, second])
    for k, controls in ((0, [first, second]), (1, [first])):
        exact = torch.linalg.lstsq(torch.stack([c[:, k] for c in controls], 1), f[:, k : k + 1]).solution[:, 0]
        torch.testing.assert_close(found[k, : len(controls)], exact, atol=1e-6, rtol=0)
    assert float(found[1, 1]) == 0
