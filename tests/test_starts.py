"""Where a chain starts: its KL, a bound that does not notice where the chain was cut, and what decodes from it."""

import math

import pytest
import torch
from torch import nn

from diffrep import config
from diffrep.denoiser import Denoiser
from diffrep.diffusion_model import DiffusionModel
from diffrep.evaluation.bound import bound
from diffrep.levels import Levels, likelihood
from diffrep.noise import VE, LinearGamma
from diffrep.objectives import denoise, prior, rate
from diffrep.parameterisations import X
from diffrep.parts import Facts
from diffrep.priors import StandardNormal
from diffrep.recipes import build
from diffrep.shapes import Batch, Draws
from diffrep.starts import GaussianStart, StandardStart
from oracles import ExactConditional, ExactNetwork, ExactPosterior, Gaussian, LinearGaussian, examples_of

NOISES = [LinearGamma(-9.0, 0.5), VE(0.05, 1.5)]


def moved(start: GaussianStart) -> GaussianStart:
    torch.manual_seed(0)
    for parameter in start.parameters():
        nn.init.normal_(parameter, std=0.3)
    return start


class Linear(nn.Module):
    """z -> W z, and a log-variance that adds nothing: the network of a start whose mean is W z."""

    def __init__(self, weights: torch.Tensor):
        super().__init__()
        self.register_buffer("weights", weights.float())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        mean = z @ self.weights.T
        return torch.cat([mean, torch.zeros_like(mean)], 1)


def exact_start(mean: torch.Tensor, variance: torch.Tensor, weights: torch.Tensor | None = None) -> GaussianStart:
    """The Gaussian of the data itself, x | z ~ N(mean + W z, variance)."""
    start = GaussianStart((len(mean),))
    start.mean.data.copy_(mean)
    start.log_variance.data.copy_(variance.log())
    if weights is not None:
        start.network = Linear(weights)
    return start


def model(network: nn.Module, gamma_1: float, start=None, truth: LinearGaussian | None = None) -> DiffusionModel:
    coded = {} if truth is None else {"posterior": ExactPosterior(truth), "prior": StandardNormal(3)}
    terms = {"diffusion": denoise, "prior": prior, **({"rate": rate} if truth else {})}
    denoiser = Denoiser(network, LinearGamma(-9.0, gamma_1), X())
    return DiffusionModel((6,), None, denoiser, terms, Levels(likelihood), start=start, **coded)


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
    start = exact_start(torch.zeros(6), torch.full((6,), truth.noise**2), truth.weights)
    x = truth.data.draw(4000)
    short = model(ExactConditional(truth), -1.0, start, truth)
    said = bound(short, examples_of(x.numpy()), levels=32, batch=2000)
    gap = said.total.double() + truth.data.log_prob(x.float().double())
    clean = float(torch.log1p(torch.tensor(math.exp(-9.0)) / truth.noise**2) * 6 / 2)  # the data end, as ever
    assert abs(float(gap.mean()) - clean) < 3.5 * float(gap.std()) / math.sqrt(len(gap))
    assert float(gap.std()) / math.sqrt(len(gap)) < 0.05


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


@pytest.mark.parametrize("method", ["vdm", "vae-vdm"])
def test_the_start_is_trained_with_the_chain(method):
    """Its KL is in the loss, each of its numbers has a gradient, and descending it lowers the reported part."""
    small = ["decoder.width=8", "encoder.width=8", "code.dim=4", "decoder.start=gaussian", "noise.gamma_1=0.0"]
    made = build(config.override(config.Settings(method=method), small), Facts((1, 8, 8), 17, torch.ones(1, 17)))
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
