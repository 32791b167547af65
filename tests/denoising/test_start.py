"""Where a chain starts: its KL, a bound that does not notice where the chain was cut, and what decodes from it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from diffrep import config
from diffrep.codes.priors import StandardNormal
from diffrep.data.counted import GreyLevels
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import VE, LinearGamma
from diffrep.denoising.parameterisations import X
from diffrep.denoising.start import GaussianStart, StandardStart
from diffrep.evaluation.bound import bound
from diffrep.evaluation.information import profile
from diffrep.methods.catalog import build
from diffrep.models.code_use import shuffle_gap
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.step_terms import denoise, prior, rate
from diffrep.shapes import Batch, Draws, Facts, Uncounted, mean_and_error
from oracles import (
    ExactConditional,
    ExactNetwork,
    ExactPosterior,
    Gaussian,
    LinearGaussian,
    diffusion_nats,
    examples_of,
)

pytestmark = pytest.mark.slow

NOISES = [LinearGamma(-9.0, 0.5), VE(0.05, 1.5)]


def moved(start: GaussianStart) -> GaussianStart:
    torch.manual_seed(0)
    for parameter in start.parameters():
        nn.init.normal_(parameter, std=0.3)
    return start


class Linear(nn.Module):
    """z -> W z, and what the log-variance changes by: the network of a start whose mean is W z."""

    def __init__(self, weights: torch.Tensor, log_variance: torch.Tensor):
        super().__init__()
        self.register_buffer("weights", weights.float())
        self.register_buffer("log_variance", log_variance.float())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        mean = z @ self.weights.T
        return torch.cat([mean, self.log_variance.expand_as(mean)], 1)


def exact_start(mean: torch.Tensor, variance: torch.Tensor) -> GaussianStart:
    """The Gaussian of the data itself, x ~ N(mean, variance)."""
    start = GaussianStart((len(mean),))
    start.mean.data.copy_(mean)
    start.log_variance.data.copy_(variance.log())
    return start


def coded_start(truth: LinearGaussian) -> GaussianStart:
    """That of data x = W z + noise, N(W z, noise^2); without z that of the data, where their axes do not mix."""
    variance = truth.data.covariance.diagonal()
    start = exact_start(torch.zeros(len(variance)), variance)
    start.network = Linear(truth.weights, math.log(truth.noise**2) - variance.log())
    return start


ALIGNED = LinearGaussian(torch.diag(torch.linspace(0.5, 1, 6)).double()[:, :3], 0.3)  # each code moves one axis


def model(network: nn.Module, gamma_1: float, start=None, truth: LinearGaussian | None = None) -> DiffusionModel:
    coding = None if truth is None else Coding(ExactPosterior(truth), StandardNormal(3), drop=0.1)
    terms = {"diffusion": denoise, "prior": prior, **({"rate": rate} if truth else {})}
    denoiser = Denoiser(network, LinearGamma(-9.0, gamma_1), X())
    return DiffusionModel((6,), None, denoiser, Objective(terms, Levels(likelihood)), coding, start)


@pytest.mark.parametrize("noise", NOISES, ids=["linear", "ve"])
@pytest.mark.parametrize("shape", [(6,), (2, 3, 4)])
def test_the_kl_is_that_of_two_gaussians(noise, shape):
    """KL(q(x_1 | x) || p(x_1 | z)), also by torch.distributions, which knows nothing of chains."""
    start, x, z = moved(GaussianStart(shape, 3, width=4)), torch.randn(5, *shape), torch.randn(5, 3)
    mean, spread = start(noise, z)
    alpha, sigma = noise.scales(torch.ones(1))
    q = torch.distributions.Normal(alpha * x, sigma.expand(x.shape))
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(mean, spread)).flatten(1).sum(1)
    torch.testing.assert_close(noise.prior_loss(x, (mean, spread)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("noise", NOISES, ids=["linear", "ve"])
def test_unit_variance_around_zero_is_the_standard_start(noise):
    """m = 0 and v = 1 make N(0, start_scale^2), so all numbers are those of a model without a start of its own."""
    start, x = GaussianStart((6,), 3), torch.randn(5, 6)
    mean, spread = start(noise)
    torch.testing.assert_close(spread, StandardStart()(noise)[1].expand(1, 6), rtol=1e-6, atol=0)
    assert not mean.any()
    torch.testing.assert_close(noise.prior_loss(x, (mean, spread)), noise.prior_loss(x), rtol=1e-4, atol=1e-5)
    gaussian = Gaussian.of(6)
    batch = [Batch(gaussian.draw(9).float(), torch.arange(9), draws=Draws.of(0)) for _ in range(2)]
    one, other = (
        model(ExactNetwork(gaussian), 5.0, given).bound(part)
        for given, part in zip((GaussianStart((6,)), None), batch, strict=True)
    )
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)
    samples = [
        model(ExactNetwork(gaussian), 5.0, given).sample(4, Draws.of(1)) for given in (GaussianStart((6,)), None)
    ]
    torch.testing.assert_close(*samples, rtol=1e-4, atol=1e-5)


def test_a_code_that_is_withheld_adds_nothing():
    """Where z is dropped the start is that without a code, elsewhere that of z."""
    noise, start, z = NOISES[0], moved(GaussianStart((6,), 3)), torch.randn(4, 3)
    drop = torch.tensor([True, False, True, False])
    for mixed, alone, coded in zip(start(noise, z, drop), start(noise), start(noise, z), strict=True):
        torch.testing.assert_close(mixed[drop], alone.expand(2, 6))
        torch.testing.assert_close(mixed[~drop], coded[~drop])
        assert (coded - alone).abs().amin() > 1e-5


@pytest.mark.parametrize("gamma_1", [-3.0, 0.0])
def test_a_chain_may_be_cut_where_a_gaussian_knows_the_rest(gamma_1):
    """Two routes to -log p(x): the whole chain, and one that ends early, each at its exact p(x_1); they differ by the
    chance of the estimates alone. Ending early at N(0, I) costs what that is off by."""
    gaussian = Gaussian.of(6, diagonal=True)
    examples = examples_of(gaussian.draw(4000).numpy())
    exact = exact_start(gaussian.mean, gaussian.covariance.diagonal())
    whole, cut, wrong = (
        bound(model(ExactNetwork(gaussian), end, start), examples, levels=32, batch=2000).total.double()
        for end, start in ((5.0, exact), (gamma_1, exact), (gamma_1, None))
    )
    gap = whole - cut
    assert abs(float(gap.mean())) < 3.5 * float(gap.std()) / math.sqrt(len(gap))
    assert float(gap.std()) / math.sqrt(len(gap)) < 0.05
    assert float((wrong - cut).mean()) > 0.3


def test_a_code_says_what_the_cut_steps_would_have():
    """x = W z + noise: p(x_1 | z) is exact around alpha W z, so with its rate the short chain's bound is -log p(x)."""
    truth = LinearGaussian.of(6, 3)
    x = truth.data.draw(4000)
    short = model(ExactConditional(truth), -1.0, coded_start(truth), truth)
    said = bound(short, examples_of(x.numpy()), levels=32, batch=2000)
    gap = said.total.double() + truth.data.log_prob(x.float().double())
    clean = float(torch.log1p(torch.tensor(math.exp(-9.0)) / truth.noise**2) * 6 / 2)  # the data end, as ever
    assert abs(float(gap.mean()) - clean) < 3.5 * float(gap.std()) / math.sqrt(len(gap))
    assert float(gap.std()) / math.sqrt(len(gap)) < 0.05


@pytest.mark.parametrize("gamma_1", [-4.0, 0.0, 9.0])
def test_what_a_code_saves_does_not_depend_on_where_the_chain_is_cut(gamma_1):
    """An ideal start saves what lies beyond the noise end, so the whole is the drop of the loss from there to the data:
    its share is that of the log-SNRs below the end. Both have closed forms."""
    cut = model(ExactConditional(ALIGNED), gamma_1, coded_start(ALIGNED), ALIGNED)
    seen = profile(cut, examples_of(ALIGNED.data.draw(4000).numpy()), levels=16, batch=2000)

    def saved(low: float, high: float) -> float:
        return diffusion_nats(ALIGNED.data, low, high) - diffusion_nats(ALIGNED.given_code, low, high)

    for (nats, error), exact in (
        (seen.integral(), saved(-9.0, math.inf)),
        (mean_and_error(seen.start_gains), saved(gamma_1, math.inf)),
    ):
        assert abs(nats - exact) < 3 * error and error < 0.05
    share, error = seen.used_share()
    assert abs(share - saved(-9.0, math.inf) / ALIGNED.information) < 3 * error
    plain = profile(model(ExactConditional(ALIGNED), gamma_1, None, ALIGNED), examples_of(np.ones((9, 6))), levels=2)
    assert not plain.start_gains.any()  # N(0, I) does not see the code


def test_the_start_has_its_share_of_the_gap():
    """Shown another's code it loses |alpha W (z - z')|^2 / 2 spread^2, s tr W'W / (1 + s n^2) at SNR s on average; the
    parts add up to the gap, and without a learned start there is none."""
    short, gaps = model(ExactConditional(ALIGNED), -1.0, coded_start(ALIGNED), ALIGNED), []
    for seed in range(20):
        x = ALIGNED.data.draw(1000, seed).float()
        short.loss(Batch(x, torch.arange(1000), draws=Draws.of(seed)))
        gaps.append(shuffle_gap(short.denoiser, short.start, short.last, most=1000))
    shares = torch.stack([gap["gap_nats_start"] for gap in gaps]).double()
    snr = math.exp(1.0)
    exact = snr * float((ALIGNED.weights**2).sum()) / (1 + snr * ALIGNED.noise**2)
    assert abs(float(shares.mean()) - exact) < 3 * float(shares.std()) / math.sqrt(20) < 0.2 * exact
    for gap in gaps:
        assert float(gap["gap_nats"]) == pytest.approx(sum(float(v) for name, v in gap.items() if name != "gap_nats"))
    plain = model(ExactConditional(ALIGNED), -1.0, None, ALIGNED)
    plain.loss(Batch(x, torch.arange(1000), draws=Draws.of(0)))
    assert "gap_nats_start" not in plain.watch() and "gap_nats_start" in short.watch()


def test_samples_of_a_short_chain_are_those_of_the_data():
    """From the exact p(x_1) an early start walks to the data's mean and variances; from N(0, I) it does not."""
    gaussian = Gaussian.of(6, diagonal=True)
    exact = exact_start(gaussian.mean, gaussian.covariance.diagonal())
    short = model(ExactNetwork(gaussian), -2.0, exact)
    x = short.sample(4000, Draws.of(0), "heun", 20).double()
    torch.testing.assert_close(x.mean(0), gaussian.mean, rtol=0, atol=0.06)
    torch.testing.assert_close(x.var(0), gaussian.covariance.diagonal(), rtol=0.1, atol=0.01)
    lost = model(ExactNetwork(gaussian), -2.0).sample(4000, Draws.of(0), "heun", 20).double()
    assert (lost.mean(0) - gaussian.mean).abs().max() > 0.1


def test_the_flow_starts_there_too():
    """With the exact p(x_1) the flow's density is that of the data, and inversion finds a standard normal x_1."""
    gaussian = Gaussian.of(6, diagonal=True)
    short = model(ExactNetwork(gaussian), -2.0, exact_start(gaussian.mean, gaussian.covariance.diagonal()))
    x = gaussian.draw(2000).float()
    gap = short.flow_bound(Batch(x, torch.arange(2000), draws=Draws.of(0)), steps=40).double()
    gap = gap + gaussian.log_prob(x.double())
    assert abs(float(gap.mean())) < 0.02
    x_1 = short.invert(x, steps=40)
    assert float(x_1.mean(0).abs().max()) < 0.08 and float((x_1.std(0) - 1).abs().max()) < 0.06
    torch.testing.assert_close(short.reconstruct_exactly(x[:9], steps=40), x[:9], rtol=0, atol=0.02)


def test_the_matched_start_has_the_moments_of_x_1():
    """With places that differ: mean and variance of x_1 by place, the KL of the closed form, and less than
    from the moments of all places together or from N(0, I); what is loaded starts in the same place."""
    level = torch.tensor([0, 3, 3, 1])  # of each of four places, plus 0 or 1
    raw = level + torch.randint(2, (4000, 1, 4), generator=torch.Generator().manual_seed(0))
    examples = examples_of(raw.numpy().astype(np.uint8), bins=5)
    facts = Facts((1, 4), 5, GreyLevels(examples, 1), moments=examples.moments())
    small = ["decoder.width=8", "noise.gamma_1=0.0"]

    def built(start, facts=facts):
        return build(config.override(config.Settings(method="vdm"), [*small, f"decoder.start={start}"]), facts)

    x, (alpha, sigma) = examples.batch(torch.arange(4000)).x, LinearGamma(-9.0, 0.0).scales(torch.ones(1))
    mean, std = built("matched").start(LinearGamma(-9.0, 0.0))
    x_1 = alpha * x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mean[0], x_1.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(std[0], x_1.std(0), atol=0.05, rtol=0)

    def nats(model):
        return float(model.noise.prior_loss(x, model.start(model.noise)).mean())

    made = built("matched")
    expected = 0.5 * float(torch.log(1 + (alpha / sigma) ** 2 * x.var(0)).sum())
    assert nats(made) == pytest.approx(expected, rel=0.05)  # a hundredth of each histogram is of all places
    by_channel = built("matched", replace(facts, counted=Uncounted()))
    assert nats(made) < nats(by_channel) < nats(built("normal"))
    assert made.begin is made.start and built("normal").begin is not built("normal").start
    loaded = built("matched", Facts((1, 4), 5))
    loaded.load_state_dict(made.state_dict())
    assert nats(loaded) == nats(made)


@pytest.mark.parametrize("method", ["vdm", "vae-vdm"])
def test_the_start_is_trained_with_the_chain(method):
    """Its KL is in the loss, each of its numbers has a gradient, and descending it lowers the reported part."""
    small = ["decoder.width=8", "encoder.width=8", "code.dim=4", "decoder.start=gaussian", "noise.gamma_1=0.0"]
    made = build(config.override(config.Settings(method=method), small), Facts((1, 8, 8), 17))
    x = (torch.randint(17, (32, 1, 8, 8), generator=torch.Generator().manual_seed(0)).clamp(max=4) + 0.5) / 8.5 - 1
    parameters = made.players()["model"]["start"]
    optimizer = torch.optim.Adam(parameters, 0.05)
    before = made.bound(Batch(x, torch.arange(32), draws=Draws.of(1)), 2)["prior"].mean()
    for seed in range(30):
        optimizer.zero_grad()
        made.loss(Batch(x, torch.arange(32), draws=Draws.of(seed)))["prior"].mean().backward()
        assert seed or all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
        optimizer.step()
    after = made.bound(Batch(x, torch.arange(32), draws=Draws.of(1)), 2)["prior"].mean()
    assert float(after) < 0.7 * float(before)
