"""Forward processes against their closed forms, and what must hold for all of them."""

from __future__ import annotations

import pytest
import torch

from diffrep.denoising.noise import VE, VP, Cosine, LearnedGamma, LinearGamma, SubVP
from oracles import gaussian_kl, sub_vp, ve, vp

PROCESSES = {
    "ve": lambda: VE(0.01, 50.0),
    "vp": lambda: VP(),
    "sub-vp": lambda: SubVP(),
    "cosine": lambda: Cosine(),
    "linear": lambda: LinearGamma(),
    "linear-learned": lambda: LinearGamma(learned=True),
    "learned": lambda: LearnedGamma(hidden=32),
}


@pytest.fixture(params=PROCESSES)
def noise(request):
    torch.manual_seed(0)
    return PROCESSES[request.param]()


@pytest.mark.parametrize(
    "process, form, ends",
    [(VE, ve, (0.01, 50.0)), (VE, ve, (0.1, 3.0)), (VP, vp, (0.1, 20.0)), (SubVP, sub_vp, (0.1, 20.0))],
)
def test_song_processes_match_their_closed_forms(process, form, ends):
    """Alpha, sigma, log-SNR, f and g of the library follow from two logarithms; the papers state them one by one."""
    t = torch.linspace(0.01, 1, 40, dtype=torch.float64)
    noise, truth = process(*ends).double(), form(t, *ends)
    alpha, sigma = noise.scales(t)
    f, g = noise.drift_diffusion(t)
    for got, expected in [
        (alpha, truth.alpha),
        (sigma, truth.variance.sqrt()),
        (noise.log_snr(t), (truth.alpha**2 / truth.variance).log()),
        (f, truth.f),
        (g**2, truth.g2),
    ]:
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-6)


def test_float32_is_enough(noise):
    """The schedule runs in float32: everywhere on the axis its log-SNR agrees with float64 to 2e-3."""
    t = torch.linspace(0, 1, 101)
    narrow = noise.log_snr(t)
    torch.testing.assert_close(narrow.double(), noise.double().log_snr(t.double()), atol=2e-3, rtol=0)


def test_the_sde_has_the_stated_marginals(noise):
    """Two routes: f and g integrated by the moment equations d alpha = f alpha, d var = 2 f var + g^2, and scales."""
    noise = noise.double()
    t = torch.linspace(0.05, 0.95, 2001, dtype=torch.float64)
    f, g = (part.detach() for part in noise.drift_diffusion(t))
    alpha, sigma = (part.detach() for part in noise.scales(t))
    gap = t[1] - t[0]
    growth = torch.exp(torch.cat([f.new_zeros(1), torch.cumsum((f[1:] + f[:-1]) / 2 * gap, 0)]))
    torch.testing.assert_close(alpha[0] * growth, alpha, rtol=1e-4, atol=1e-6)
    gained = g**2 / growth**2  # the variance, divided by growth^2, is the integral of this
    gained = torch.cat([f.new_zeros(1), torch.cumsum((gained[1:] + gained[:-1]) / 2 * gap, 0)])
    torch.testing.assert_close(growth**2 * (sigma[0] ** 2 + gained), sigma**2, rtol=1e-4, atol=1e-6)


def test_log_snr_falls_and_time_inverts_it(noise):
    """log_snr is strictly falling, so time(log_snr(t)) is t."""
    noise = noise.double()
    t = torch.linspace(0.002, 1, 200, dtype=torch.float64)
    log_snr = noise.log_snr(t).detach()
    assert (log_snr.diff() < 0).all()
    torch.testing.assert_close(noise.time(log_snr), t, rtol=0, atol=1e-7)


def test_log_snr_slope_is_its_derivative(noise):
    """Central differences of log_snr agree with its slope."""
    noise = noise.double()
    t, h = torch.linspace(0.01, 0.99, 50, dtype=torch.float64), 1e-6
    differences = (noise.log_snr(t + h) - noise.log_snr(t - h)) / (2 * h)
    torch.testing.assert_close(noise.log_snr_slope(t), differences, rtol=1e-5, atol=1e-5)


def test_slopes_leave_no_trace(noise):
    """Under no_grad a slope carries no graph, and a time that came without a gradient leaves without one."""
    t = torch.rand(3)
    with torch.no_grad():
        assert not noise.log_snr_slope(t).requires_grad
    noise.drift_diffusion(t)
    assert not t.requires_grad


def test_add_draws_from_the_marginal(noise):
    """x_t has mean alpha x and deviation sigma, each example by its own time; exact for eps of +1 and -1."""
    t = torch.tensor([0.1, 0.5, 0.9])
    x = torch.randn(3, 2, 4, 4)
    alpha, sigma = noise.scales(t)
    plus, minus = noise.add(x, torch.ones_like(x), t), noise.add(x, -torch.ones_like(x), t)
    for i in range(3):
        torch.testing.assert_close((plus + minus)[i] / 2, alpha[i] * x[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close((plus - minus)[i] / 2, sigma[i].expand(2, 4, 4), rtol=1e-4, atol=1e-5)


def test_prior_loss_is_the_kl(noise):
    """KL(q(x_1 | x) || N(0, start_scale^2)), also by the general formula for two Gaussians."""
    x = torch.randn(4, 1, 3, 3)
    alpha, sigma = (part.detach().double() for part in noise.scales(torch.ones(1)))
    eye = torch.eye(9, dtype=torch.float64)
    scale = (alpha**2 + sigma**2).sqrt()
    torch.testing.assert_close(noise.start_scale().double(), scale[0], rtol=1e-6, atol=0)
    expected = [gaussian_kl(alpha * one, sigma**2 * eye, 0 * one, scale**2 * eye) for one in x.double().flatten(1)]
    torch.testing.assert_close(noise.prior_loss(x).double(), torch.stack(expected), rtol=1e-3, atol=1e-5)


def test_start_scale_is_that_of_unit_variance_data(noise):
    """Sampling starts from the deviation that x_1 has where the data has variance one, in the process's precision."""
    x_1 = noise.add(torch.randn(20_000, 1), torch.randn(20_000, 1), torch.ones(20_000)).detach()
    assert float(noise.start_scale().detach()) == pytest.approx(float(x_1.std()), rel=0.02)
    assert noise.double().start_scale().dtype == torch.float64


@pytest.mark.parametrize("process", [LinearGamma, LearnedGamma])
def test_gamma_is_pinned(process):
    """Whatever the inside has learned, gamma runs from gamma_0 to gamma_1 (here after the weights are made wild)."""
    noise = process(-13.3, 5.0)
    for parameter in noise.parameters():
        torch.nn.init.normal_(parameter, std=3.0)
    ends = noise.log_snr(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.tensor([13.3, -5.0]), rtol=0, atol=1e-5)
    assert (noise.log_snr(torch.linspace(0, 1, 100)).diff() <= 0).all()


def test_cosine_has_its_range_and_its_shape():
    """log_snr runs over the stated range, and alpha and sigma are the cosine and sine of an angle even in t."""
    noise = Cosine(-12.0, 10.0).double()
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(noise.log_snr(t[[0, -1]]), torch.tensor([10.0, -12.0]).double(), rtol=0, atol=1e-3)
    angle = torch.atan2(*reversed(noise.scales(t)))
    torch.testing.assert_close(angle.diff(), angle.diff()[:1].expand(10), rtol=1e-6, atol=0)


def test_learned_ends_have_a_gradient():
    """The bound depends on gamma through its ends: d prior_loss / d gamma_1 agrees with a difference quotient."""
    noise, x = LinearGamma(-6.0, 2.0, learned=True).double(), torch.ones(2, 3).double()
    (gradient,) = torch.autograd.grad(noise.prior_loss(x).sum(), noise.ends)
    high, low = (LinearGamma(-6.0, 2.0 + h).prior_loss(x).sum() for h in (0.01, -0.01))
    assert gradient[0] == 0
    assert gradient[1] == pytest.approx(float((high - low) / 0.02), rel=1e-2)


def test_the_slope_is_differentiable_in_the_parameters():
    """The inside of gamma learns through its slope: the gradient of a function of it is that of central differences."""
    torch.manual_seed(0)
    noise = LearnedGamma(hidden=8).double()
    t = torch.rand(5, dtype=torch.float64)
    noise.log_snr_slope(t).square().sum().backward()
    for name, parameter in noise.named_parameters():
        h = 1e-5 * torch.ones_like(parameter)
        up, down = (_slope_with(noise, name, sign * h, t) for sign in (1, -1))
        expected = (up - down) / 2e-5
        assert float(parameter.grad.sum()) == pytest.approx(float(expected), rel=1e-4, abs=1e-5), name


def _slope_with(noise, name, shift, t):
    parameter = dict(noise.named_parameters())[name]
    with torch.no_grad():
        parameter += shift
    value = noise.log_snr_slope(t).square().sum().detach()
    with torch.no_grad():
        parameter -= shift
    return value


@pytest.mark.parametrize(
    "make", [lambda: VE(1.0, 0.1), lambda: VP(0.0, 1.0), lambda: LinearGamma(5.0, -5.0), lambda: Cosine(3.0, 3.0)]
)
def test_wrong_ranges_are_refused(make):
    """A range the wrong way round is a mistake, not a process that runs backwards."""
    with pytest.raises(ValueError, match="expect"):
        make()
