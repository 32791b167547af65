"""A code as one more observation: against the posterior of Gaussians, against a sum over grey levels, and unheard."""

import math

import pytest
import torch
from torch import nn

from diffrep.codes.posteriors import Code, Posterior
from diffrep.codes.priors import StandardNormal
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import LinearGamma
from diffrep.denoising.observation import Observation, fuse
from diffrep.denoising.parameterisations import EDM, Marginal, MarginalByPlace
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.step_terms import denoise
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import MLPDecoder, UNet
from diffrep.shapes import Batch, Draws

COUNTS = torch.tensor([[5.0, 1.0, 0.0, 30.0, 2.0, 9.0]])
KINDS = {
    "edm": lambda: EDM(0.7, shown=True),
    "marginal": lambda: Marginal(1, 6, COUNTS),
    "by place": lambda: MarginalByPlace((1, 4, 4), 6, 1, (torch.zeros(1, 4, 4, dtype=torch.int64), COUNTS)),
}


def seen(batch: int = 5):
    """x_t, alpha, sigma with the axes of x, and what a code says: mu, rho; float32."""
    draws = Draws.of(0)
    alpha, sigma = (part[:, None, None, None] for part in LinearGamma(-6.0, 4.0).scales(draws.uniform(batch)))
    return draws.normal(batch, 1, 4, 4), alpha, sigma, (draws.normal(batch, 1, 4, 4), 3 * draws.uniform(batch, 1, 4, 4))


def test_gaussian_data_and_a_gaussian_code_have_the_posterior_of_both():
    """x ~ N(0, sd^2) seen through y and through mu: precisions add, and the mean is weighted by them."""
    x_t, alpha, sigma, (mu, rho) = (part.double() if isinstance(part, torch.Tensor) else part for part in seen())
    mu, rho = mu.double(), rho.double()
    extra, finish = EDM(0.7, shown=True)(x_t, alpha, sigma, (mu, rho))
    snr = (alpha / sigma) ** 2
    precision = 1 / 0.49 + snr + rho
    mean = (snr * x_t / alpha + rho * mu) / precision
    torch.testing.assert_close(finish(torch.zeros_like(x_t))[0], mean)
    torch.testing.assert_close(finish(torch.ones_like(x_t))[0] - mean, precision**-0.5)
    torch.testing.assert_close(extra, torch.cat([mean, precision**-0.5], 1))


@pytest.mark.parametrize("kind", ["marginal", "by place"])
def test_grey_levels_and_a_gaussian_code_have_the_posterior_of_both(kind):
    """p(k) N(y; x_k, s^2) N(mu; x_k, 1 / rho), summed over the levels, is what the fused table says."""
    x_t, alpha, sigma, (mu, rho) = seen()
    _, finish = KINDS[kind]()(x_t, alpha, sigma, (mu, rho))
    y, s = (x_t / alpha).double()[..., None], (sigma / alpha).double()[..., None]
    levels = torch.tensor([2 * (k + 0.5) / 6 - 1 for k in range(6)], dtype=torch.float64)
    prior = 0.999 * COUNTS[0].double() / COUNTS.sum() + 0.001 / 6
    energy = -0.5 * ((y - levels) / s) ** 2 - 0.5 * rho.double()[..., None] * (mu.double()[..., None] - levels) ** 2
    share = torch.softmax(prior.log() + energy, -1)
    mean = (share * levels).sum(-1)
    std = (share * (levels - mean[..., None]) ** 2).sum(-1).sqrt()
    found = finish(torch.zeros_like(x_t))[0]
    torch.testing.assert_close(found.double(), mean, rtol=0, atol=5e-3)
    torch.testing.assert_close((finish(torch.ones_like(x_t))[0] - found).double(), std, rtol=0, atol=1e-2)


def test_two_observations_are_one():
    """(SNR y + rho mu) / (SNR + rho) and (SNR + rho)^(-1/2), as Bayes' rule has it for two Gaussians."""
    x_t, alpha, sigma, (mu, rho) = seen()
    y, s = x_t / alpha, sigma / alpha
    fused, width = fuse(y, s, (mu, rho))
    snr = 1 / s**2
    torch.testing.assert_close(fused, (snr * y + rho * mu) / (snr + rho))
    torch.testing.assert_close(width, (snr + rho) ** -0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_withheld_code_is_no_code_bit_for_bit(kind):
    """rho = 0 leaves y and s as they are; so a code that is dropped, or past `until`, is not heard at all."""
    torch.manual_seed(0)
    x_t, alpha, sigma, (mu, rho) = seen()
    parameterisation = KINDS[kind]()
    withheld, none = parameterisation(x_t, alpha, sigma, (mu, 0 * rho)), parameterisation(x_t, alpha, sigma)
    assert withheld[0] is none[0] is None or torch.equal(withheld[0], none[0])
    for part, without in zip(withheld[1](0.1 * x_t), none[1](0.1 * x_t), strict=True):  # x and eps of one output
        assert torch.equal(part, without)
    net = UNet((1, 4, 4), width=8, multipliers=(1,), conditioning=Conditioning(3, extra_channels=2, code_until=0.0))
    net.out.weight.data.normal_()
    denoiser = Denoiser(net, LinearGamma(-6.0, 4.0), parameterisation, Observation((1, 4, 4), 3, 4, until=0.0))
    z, t = torch.randn(5, 3), torch.full((5,), 0.8)  # log-SNR -2: noise enough for a code to be heard
    none = denoiser(x_t, t).x
    assert torch.equal(denoiser(x_t, t, z, drop=torch.ones(5, dtype=torch.bool)).x, none)
    assert not torch.equal(denoiser(x_t, t, z).x, none)
    assert torch.equal(denoiser(x_t, torch.full((5,), 0.5), z).x, denoiser(x_t, torch.full((5,), 0.5)).x)


def test_a_code_is_heard_from_the_first_step():
    """A decoder begins with an output of nearly zero; what it is added to depends on z at once, and strongly."""
    torch.manual_seed(0)
    x_t, t = torch.randn(8, 1, 8, 8), torch.full((8,), 0.95)

    def pull(observed: bool) -> float:
        """Size of the gradient of the denoising loss to z."""
        torch.manual_seed(1)
        net = UNet((1, 8, 8), width=8, multipliers=(1,), conditioning=Conditioning(3, extra_channels=2))
        heard = Observation((1, 8, 8), 3, 4) if observed else None
        z = torch.randn(8, 3, requires_grad=True)
        said = Denoiser(net, LinearGamma(-6.0, 4.0), EDM(0.5, shown=True), heard)(x_t, t, z)
        (gradient,) = torch.autograd.grad((said.x**2).sum(), z)
        return float(gradient.abs().mean())

    assert pull(True) > 3 * pull(False)


class Itself(Posterior):
    """The code of x is x, with hardly any noise: as much as a code can tell."""

    deterministic, timed, dim = False, False, 2

    def __init__(self):
        super().__init__()
        self.encoder = nn.Identity()

    def forward(self, x, log_snr=None):
        return Code(x, torch.full_like(x, 0.05))


class Told(nn.Module):
    """mu = z and a precision of e^4: the decoder is all but handed x."""

    def forward(self, z, log_snr, drop=None):
        return z, torch.full_like(z, math.e**4)


def test_the_bound_stays_above_the_entropy():
    """Two numbers of four equally likely levels have 2 ln 4 nats; a code that gives x away pays for it in its rate,
    and a decoder that believes the code cannot get below."""
    torch.manual_seed(0)
    levels = torch.randint(0, 4, (4000, 2))
    x = (levels.float() + 0.5) / 2 - 1
    denoiser = Denoiser(
        MLPDecoder((2,), width=8, blocks=1, conditioning=Conditioning(2, extra_channels=4)),
        LinearGamma(-6.0, 5.0),
        EDM(0.6, shown=True),
        Told(),
    )
    model = DiffusionModel(
        (2,), 4, denoiser, Objective({"diffusion": denoise}, Levels(likelihood)), Coding(Itself(), StandardNormal(2))
    )
    nats = sum(model.bound(Batch(x, torch.arange(4000), draws=Draws.of(0)), levels=16).values())
    assert float(nats.mean() - 3 * nats.std() / 4000**0.5) > 2 * math.log(4)
