"""Samplers against Gaussian data, for which the denoiser, the flow, the posterior and the likelihood are known."""

from __future__ import annotations

import math

import pytest
import torch

from diffrep.denoising.denoiser import Prediction
from diffrep.denoising.noise import VE, VP, Cosine, LearnedGamma, LinearGamma, SubVP
from diffrep.denoising.probability_flow import dequantised_log_likelihood, flow, flow_log_likelihood, invert
from diffrep.denoising.samplers import (
    ENOUGH,
    STEPS,
    Sampling,
    ancestral,
    cas,
    ddim,
    dpm_solver_2m,
    heun,
    predictor_corrector,
    sample,
    sampling_of,
    sde_dpm_solver_2m,
    step_named,
)
from diffrep.denoising.spacing import SPACINGS, times
from diffrep.errors import UserError
from diffrep.shapes import Draws
from oracles import Gaussian, fitted_order

PROCESSES = {"ve": lambda: VE(0.01, 50.0), "vp": lambda: VP(), "linear": lambda: LinearGamma()}
MORE = PROCESSES | {"sub-vp": lambda: SubVP(), "cosine": lambda: Cosine(), "learned": lambda: LearnedGamma(hidden=16)}


@pytest.fixture(params=PROCESSES)
def noise(request):
    return PROCESSES[request.param]().double()


@pytest.fixture(params=MORE)
def any_noise(request):
    torch.manual_seed(0)
    return MORE[request.param]().double()


@pytest.fixture
def gaussian():
    return Gaussian.of(1, 2, 2)


def level(noise, t):
    alpha, sigma = noise.scales(torch.tensor([t], dtype=torch.float64))
    return float(alpha.detach()), float(sigma.detach())


def assert_moments(x, mean, covariance, errors=4.5):
    """The sample mean and covariance of x lie within `errors` standard errors of the truth, entry by entry."""
    flat = x.flatten(1)
    spread = covariance.diagonal()
    mean_error = (spread / len(x)).sqrt()
    covariance_error = ((torch.outer(spread, spread) + covariance**2) / len(x)).sqrt()
    assert ((flat.mean(0) - mean).abs() / mean_error).max() < errors
    assert ((flat.T.cov() - covariance).abs() / covariance_error).max() < errors


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_every_sampler_reaches_the_data(name, noise, gaussian):
    """With the ideal denoiser and many steps, noise from p_1 becomes the data: mean and covariance."""
    x_1 = gaussian.draw_noisy(noise, 1.0, batch=4000)
    x = sample(gaussian.denoiser(noise), noise, x_1, step_named(name), times(noise, 300), Draws.of(1))
    assert_moments(x, gaussian.mean, gaussian.covariance)


@pytest.mark.slow
def test_every_process_can_be_sampled(any_noise, gaussian):
    """Where alpha and sigma are anything (sub-VP is not variance preserving, the learned gamma not linear) too."""
    x_1 = gaussian.draw_noisy(any_noise, 1.0, batch=4000)
    for grid in (times(any_noise, 300), torch.linspace(1, 0, 301).double()):  # even in log-SNR, or in t
        x = sample(gaussian.denoiser(any_noise), any_noise, x_1, ancestral, grid, Draws.of(1))
        assert_moments(x, gaussian.mean, gaussian.covariance, errors=5.5)


@pytest.mark.parametrize("step, order", [(ddim(), 1), (heun, 2), (dpm_solver_2m, 2)])
def test_steps_have_their_order(step, order, noise, gaussian):
    """The flow of Gaussian data is known in closed form: halving the step divides the error by 2^order."""
    x_1 = gaussian.draw_noisy(noise, 1.0, batch=50)
    truth = gaussian.flow(noise, x_1, 1.0, 0.0)
    steps = [64, 128, 256, 512]
    walks = [sample(gaussian.denoiser(noise), noise, x_1, step, times(noise, n), last=False) for n in steps]
    errors = [float((x - truth).norm()) for x in walks]
    assert fitted_order(steps, errors) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("step, order", [(heun, 2), (dpm_solver_2m, 2)])
def test_steps_have_their_order_however_they_are_spaced(step, order, spacing, gaussian):
    """For a process whose log-SNR is not even in t, and is smooth at both ends."""
    noise, steps = Cosine(-5.0, 5.0).double(), [32, 64, 128]
    x_1 = gaussian.draw_noisy(noise, 1.0, batch=20)
    truth, walks = gaussian.flow(noise, x_1, 1.0, 0.0), [times(noise, n, spacing=spacing) for n in steps]
    made = [sample(gaussian.denoiser(noise), noise, x_1, step, walk, last=False) for walk in walks]
    assert fitted_order(steps, [float((x - truth).norm()) for x in made]) == pytest.approx(order, abs=0.2)


@pytest.mark.slow
def test_flow_agrees_either_way_and_in_between(any_noise, gaussian):
    """From any level to any other, the flow is the closed-form map."""
    x = gaussian.draw_noisy(any_noise, 0.7, batch=20)
    grid = times(any_noise, 300, start=0.7)
    down = flow(gaussian.denoiser(any_noise), any_noise, x, grid)
    torch.testing.assert_close(down, gaussian.flow(any_noise, x, 0.7, 0.0), rtol=1e-3, atol=1e-3)
    up = flow(gaussian.denoiser(any_noise), any_noise, down, grid.flip(0))
    torch.testing.assert_close(up, x, rtol=1e-3, atol=1e-3)


def test_inversion_cycle(noise, gaussian):
    """Encoding an example into its x_1 and sampling from there gives the example back, and its x_1 is the exact one."""
    denoise, x_0 = gaussian.denoiser(noise), gaussian.draw_noisy(noise, 0.0, batch=20)
    x_1 = invert(denoise, noise, x_0, steps=200)
    scale = float(noise.start_scale())
    torch.testing.assert_close(x_1 / scale, gaussian.flow(noise, x_0, 0.0, 1.0) / scale, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(flow(denoise, noise, x_1, times(noise, 200)), x_0, rtol=1e-3, atol=2e-3)


def test_ancestral_is_the_exact_posterior(any_noise):
    """Data of one point: x_s follows the Gaussian conditional of (x_s, x_t) given x, whose covariance is known.

    It is alpha_t / alpha_s sigma_s^2, because x_t is alpha_t / alpha_s x_s and independent noise. The step's own random
    numbers are known, so one example tells mean and deviation apart from chance.
    """
    x, t, s = torch.tensor([[0.3, -0.8]], dtype=torch.float64), 0.6, 0.45
    (alpha_t, sigma_t), (alpha_s, sigma_s) = level(any_noise, t), level(any_noise, s)
    point, x_t = Gaussian.point(x[0]), torch.tensor([[1.1, 0.2]], dtype=torch.float64)
    shared = alpha_t / alpha_s * sigma_s**2
    mean = alpha_s * x + shared / sigma_t**2 * (x_t - alpha_t * x)
    deviation = math.sqrt(sigma_s**2 - shared**2 / sigma_t**2)
    grid = torch.tensor([t, s], dtype=torch.float64)
    got = sample(point.denoiser(any_noise), any_noise, x_t, ancestral, grid, Draws.of(7), last=False)
    expected = mean + deviation * Draws.of(7).normal(1, 2).double()
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_ancestral_reads_as_in_the_paper():
    """VDM: x_s = alpha_s / alpha_t (x_t - sigma_t c eps_hat) + sigma_s sqrt(c) noise, c = -expm1(gamma_s - gamma_t)."""
    noise, x_t = LinearGamma().double(), torch.randn(5, 3, dtype=torch.float64)
    eps_hat = torch.randn(5, 3, dtype=torch.float64)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = level(noise, 0.6), level(noise, 0.5)
    c = -math.expm1((-13.3 + 18.3 * 0.5) - (-13.3 + 18.3 * 0.6))
    normal = Draws.of(3).normal(5, 3).double()
    expected = alpha_s / alpha_t * (x_t - sigma_t * c * eps_hat) + sigma_s * math.sqrt(c) * normal
    grid = torch.tensor([0.6, 0.5], dtype=torch.float64)
    got = sample(_saying(eps_hat, noise), noise, x_t, ancestral, grid, Draws.of(3), last=False)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)  # the process keeps its ends in float32


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_reads_as_in_the_paper(eta):
    """J. Song et al., Eqs. 12 and 16, with their alpha (ours squared), for a variance preserving process."""
    noise, x_t = VP().double(), torch.randn(5, 3, dtype=torch.float64)
    eps_hat, normal = torch.randn(5, 3, dtype=torch.float64), Draws.of(3).normal(5, 3).double()
    now, then = level(noise, 0.6)[0] ** 2, level(noise, 0.5)[0] ** 2
    deviation = eta * math.sqrt((1 - then) / (1 - now)) * math.sqrt(1 - now / then)
    clean = (x_t - math.sqrt(1 - now) * eps_hat) / math.sqrt(now)
    expected = math.sqrt(then) * clean + math.sqrt(1 - then - deviation**2) * eps_hat + deviation * normal
    grid = torch.tensor([0.6, 0.5], dtype=torch.float64)
    got = sample(_saying(eps_hat, noise), noise, x_t, ddim(eta), grid, Draws.of(3), last=False)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_cas_reads_as_in_the_paper():
    """ASM, Algorithm 2, for its process of alpha = 1: x + eta sigma_t^2 score + beta sigma_s noise."""
    noise, x_t, eta = VE(0.01, 50.0).double(), torch.randn(5, 3, dtype=torch.float64), 0.4
    eps_hat, normal = torch.randn(5, 3, dtype=torch.float64), Draws.of(3).normal(5, 3).double()
    sigma_t, sigma_s = level(noise, 0.6)[1], level(noise, 0.58)[1]
    beta = math.sqrt(1 - ((1 - eta) / (sigma_s / sigma_t)) ** 2)
    expected = x_t + eta * sigma_t**2 * (-eps_hat / sigma_t) + beta * sigma_s * normal
    grid = torch.tensor([0.6, 0.58], dtype=torch.float64)
    got = sample(_saying(eps_hat, noise), noise, x_t, cas(eta), grid, Draws.of(3), last=False)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [None, 0.0, 0.1, 0.5, 1.0])
def test_cas_keeps_the_noise_on_schedule(any_noise, eta):
    """Data of one point, long steps and short: x_s - alpha_s x is the old noise and the new, whose squares add to
    sigma_s^2; told apart by a walk with the same random numbers from x_t without noise."""
    x, e = torch.tensor([[0.3, -0.8]], dtype=torch.float64), torch.tensor([[1.3, 0.4]], dtype=torch.float64)
    denoise = Gaussian.point(x[0]).denoiser(any_noise)
    for grid in (torch.tensor([0.9, 0.2]).double(), torch.tensor([0.6, 0.59]).double()):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = level(any_noise, float(grid[0])), level(any_noise, float(grid[1]))
        walks = [
            sample(denoise, any_noise, alpha_t * x + sigma_t * part, cas(eta), grid, Draws.of(7), last=False)
            for part in (e, 0 * e)
        ]
        old = (walks[0] - walks[1]) / e
        new = (walks[1] - alpha_s * x) / Draws.of(7).normal(1, 2).double()
        torch.testing.assert_close(old**2 + new**2, torch.full_like(x, sigma_s**2), rtol=1e-7, atol=1e-9)


def test_cas_between_its_ends(gaussian):
    """eta = 0 is too small for any step, so it draws nothing new: DDIM. eta = 1 - gamma^2 is the ancestral step."""
    noise = LinearGamma().double()
    x_1, grid = gaussian.draw_noisy(noise, 1.0, batch=20), times(noise, 10)
    gamma = math.exp(-18.3 / 10 / 2)
    for eta, other in ((0.0, ddim()), (1 - gamma**2, ancestral)):
        got, expected = (
            sample(gaussian.denoiser(noise), noise, x_1, step, grid, Draws.of(0)) for step in (cas(eta), other)
        )
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    middle = (1 - gamma + 1 - gamma**2) / 2
    got, expected = (
        sample(gaussian.denoiser(noise), noise, x_1, step, grid, Draws.of(0)) for step in (cas(), cas(middle))
    )
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"eta in \[0, 1\]"):
        cas(1.5)


def test_what_is_asked_of_a_sampling_is_what_it_does():
    """Each of the three by itself, and enough steps for a sampler where none are named."""
    usual = Sampling("dpm", 30, "time")
    assert sampling_of(True, usual=usual) == Sampling("dpm", ENOUGH["dpm"], "time")
    assert sampling_of(True, "heun", usual=usual) == Sampling("heun", ENOUGH["heun"], "time")
    assert sampling_of(True, steps=7, usual=usual) == Sampling("dpm", 7, "time")
    assert sampling_of(True, spacing="edm", usual=usual) == Sampling("dpm", ENOUGH["dpm"], "edm")


@pytest.mark.parametrize("step", [ddim(), heun, dpm_solver_2m])
def test_a_step_lands_on_the_next_level(step, any_noise):
    """Data of one point: one step of any length ends at alpha_s x + sigma_s eps, not at alpha_t x + sigma_s eps."""
    x, eps = torch.tensor([[0.3, -0.8]], dtype=torch.float64), torch.tensor([[1.3, 0.4]], dtype=torch.float64)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = level(any_noise, 0.9), level(any_noise, 0.2)
    grid = torch.tensor([0.9, 0.2], dtype=torch.float64)
    denoise = Gaussian.point(x[0]).denoiser(any_noise)
    got = sample(denoise, any_noise, alpha_t * x + sigma_t * eps, step, grid, last=False)
    torch.testing.assert_close(got, alpha_s * x + sigma_s * eps, rtol=1e-7, atol=1e-7)


@pytest.mark.slow
def test_few_steps_of_the_sde_solver_keep_the_variance(gaussian):
    """The reverse process with the ideal denoiser ends in the data: the error of the total variance falls as
    1 / steps^2, and in 20 steps it is a fifth of the ancestral sampler's."""
    noise = LinearGamma().double()
    x_1, truth = gaussian.draw_noisy(noise, 1.0, batch=40_000), gaussian.covariance.trace()
    errors = {}
    for step, n in ((sde_dpm_solver_2m, 20), (sde_dpm_solver_2m, 40), (ancestral, 20)):
        x = sample(gaussian.denoiser(noise), noise, x_1, step, times(noise, n), Draws.of(2))
        errors[step, n] = abs(float(x.flatten(1).var(0).sum() / truth - 1))
    few, more, plain = errors.values()
    assert few < plain / 4 and more < few / 2.5


def test_the_sde_solver_reads_as_in_the_paper():
    """Lu et al. 2022, Section 5, in their h = log(alpha_s / sigma_s) - log(alpha_t / sigma_t): x_s = sigma_s / sigma_t
    e^-h x_t + alpha_s (1 - e^-2h) (x_hat + (x_hat - x_hat_before) / 2 r) + sigma_s sqrt(1 - e^-2h) noise, r = before /
    h. x_hat is 1 at the first level and 3 at the second."""
    noise, x = VP().double(), torch.tensor([[0.4, -1.2]], dtype=torch.float64)
    grid = torch.tensor([0.8, 0.6, 0.3], dtype=torch.float64)
    (a0, s0), (a1, s1), (a2, s2) = (level(noise, float(t)) for t in grid)

    def said(x_t, t):
        return Prediction.from_x(torch.full_like(x_t, 1.0 if t[0] > 0.7 else 3.0), x_t, *noise.scales(t))

    draws = Draws.of(5)
    first, second = draws.normal(1, 2).double(), draws.normal(1, 2).double()
    h, k = math.log(a1 / s1) - math.log(a0 / s0), math.log(a2 / s2) - math.log(a1 / s1)
    middle = s1 / s0 * math.exp(-h) * x - a1 * math.expm1(-2 * h) * 1.0 + s1 * math.sqrt(-math.expm1(-2 * h)) * first
    ahead = 3.0 + (3.0 - 1.0) / (2 * h / k)
    expected = s2 / s1 * math.exp(-k) * middle - a2 * math.expm1(-2 * k) * ahead
    expected = expected + s2 * math.sqrt(-math.expm1(-2 * k)) * second
    got = sample(said, noise, x, sde_dpm_solver_2m, grid, Draws.of(5), last=False)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_few_ancestral_steps_lose_variance_and_many_do_not(gaussian):
    """The reverse kernel is Gaussian with the wrong variance in a long step; the error falls as 1 / steps."""
    noise = LinearGamma().double()
    x_1 = gaussian.draw_noisy(noise, 1.0, batch=20_000)
    truth = gaussian.marginal(noise, 0.0)[1].trace()
    errors = []
    for n in (10, 20, 40):
        x = sample(gaussian.denoiser(noise), noise, x_1, ancestral, times(noise, n), Draws.of(2), last=False)
        errors.append(float(truth - x.flatten(1).var(0).sum()))
    assert min(errors) > 0
    assert fitted_order([10, 20, 40], errors) == pytest.approx(1, abs=0.35)


@pytest.mark.slow
def test_langevin_steps_repair_a_wrong_start(gaussian):
    """Corrections draw x towards p_s whatever it was: their own stationary law is p_s but for a known excess.

    A Langevin step of size h on N(m, v) has the stationary variance v / (1 - h / (2 v)); h = 2 (snr sigma)^2.
    """
    noise, s = VE(0.01, 50.0).double(), 0.55
    grid = torch.tensor([0.7, s], dtype=torch.float64)
    stay = predictor_corrector(snr=0.3, corrections=300, predictor=lambda denoise, state, t, s, draws: state)
    x = sample(
        gaussian.denoiser(noise), noise, torch.zeros(40_000, 1, 2, 2).double(), stay, grid, Draws.of(4), last=False
    )
    mean, covariance = gaussian.marginal(noise, s)
    size = 2 * (0.3 * level(noise, s)[1]) ** 2
    values, basis = torch.linalg.eigh(covariance)
    assert_moments(x, mean, basis @ (values / (1 - size / (2 * values))).diag() @ basis.T)


def test_the_last_step_takes_the_remaining_noise_away(gaussian):
    """last=True returns E[x | x_0] of what last=False returns."""
    noise = VE(0.3, 50.0).double()
    denoise, x_1 = gaussian.denoiser(noise), gaussian.draw_noisy(noise, 1.0, batch=10)
    rough = sample(denoise, noise, x_1, heun, times(noise, 20), last=False)
    smooth = sample(denoise, noise, x_1, heun, times(noise, 20))
    _, covariance = gaussian.marginal(noise, 0.0)
    gain = gaussian.covariance @ torch.linalg.inv(covariance)
    expected = gaussian.mean + (rough.flatten(1) - gaussian.mean) @ gain.T
    torch.testing.assert_close(smooth.flatten(1), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_times_are_even_where_they_say(any_noise, spacing):
    """steps + 1 falling times from start to 0, even in t, in log-SNR or in (sigma / alpha)^(1 / 7)."""
    grid = times(any_noise, 8, 0.8, spacing)
    assert (grid[0], grid[-1], len(grid)) == (0.8, 0.0, 9) and (grid.diff() < 0).all()
    alpha, sigma = (scale.detach() for scale in any_noise.scales(grid))
    measure = {"time": grid, "log-snr": (alpha / sigma).log(), "edm": (sigma / alpha) ** (1 / 7)}[spacing]
    torch.testing.assert_close(measure.diff(), measure.diff().mean().expand(8), rtol=2e-3, atol=0)


def test_the_spacing_of_karras_reads_as_in_the_paper():
    """Eq. 5, for their process (alpha = 1): sigma_i = (max^(1/7) + i / (N - 1) (min^(1/7) - max^(1/7)))^7."""
    noise = VE(0.002, 80.0).double()
    sigma = noise.scales(times(noise, 17, spacing="edm"))[1]
    expected = (80 ** (1 / 7) + torch.arange(18).double() / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sigma, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", STEPS)
def test_draws_decide_and_precision_passes_through(name, gaussian):
    """One seed gives one x, another seed another where the sampler draws, which it
    does not do without random numbers; float32 stays and agrees with float64."""
    noise, x_1 = VP(), gaussian.draw_noisy(VP(), 1.0, batch=6).float()
    denoise, grid = gaussian.denoiser(noise), times(noise, 30)
    first, again, other = (sample(denoise, noise, x_1, STEPS[name], grid, Draws.of(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    try:
        exact = torch.equal(sample(denoise, noise, x_1, STEPS[name], grid), first)
    except UserError:  # it draws
        exact = False
    assert torch.equal(first, other) == exact and (exact or name not in ("ddim", "heun", "dpm"))
    assert first.dtype == torch.float32 and not first.requires_grad
    wide = sample(denoise, noise, x_1.double(), STEPS[name], grid.double(), Draws.of(0))
    torch.testing.assert_close(first.double(), wide, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", STEPS)
def test_two_parts_of_a_batch_are_the_whole(name, gaussian):
    """Each example is sampled on its own: a batch cut in two gives what it gives whole."""
    noise, x_1 = VE().double(), gaussian.draw_noisy(VE(), 1.0, batch=6)
    denoise, grid = gaussian.denoiser(noise), times(noise, 10)
    whole = sample(denoise, noise, x_1, STEPS[name], grid, Draws.of(0))
    halves = [
        sample(denoise, noise, x_1[3 * i :][:3], STEPS[name], grid, Draws.of(0, shard=i, shards=2)) for i in (0, 1)
    ]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=1e-12, atol=1e-12)


def test_flow_log_likelihood_is_the_log_density(noise):
    """On uncorrelated Gaussian data one Rademacher vector gives the exact trace, so only the step size is left."""
    gaussian = Gaussian.of(1, 2, 2, diagonal=True)
    x_0 = gaussian.draw_noisy(noise, 0.0, batch=50)
    got = flow_log_likelihood(gaussian.denoiser(noise), noise, x_0, 200, Draws.of(0)).double()
    pushed = gaussian.flow_log_prob(noise, x_0, float(noise.start_scale()))
    torch.testing.assert_close(got, pushed, rtol=0, atol=0.02)
    density = gaussian.log_prob_noisy(noise, x_0, 0.0)
    assert float((got - density).mean()) == pytest.approx(0, abs=0.2)  # p_1 is not quite N(0, start_scale^2)


def test_hutchinson_is_unbiased_on_correlated_data(gaussian):
    """With correlations each estimate errs, their mean is the exact log-likelihood, and more probes err less."""
    noise = VP().double()
    x_0 = gaussian.draw_noisy(noise, 0.0, batch=1).expand(400, 1, 2, 2)
    truth = gaussian.flow_log_prob(noise, x_0[:1], float(noise.start_scale()))
    one, eight = (
        flow_log_likelihood(gaussian.denoiser(noise), noise, x_0, 60, Draws.of(0), probes=k).double() for k in (1, 8)
    )
    for estimate in (one, eight):
        assert abs(float(estimate.mean() - truth)) < 4 * float(estimate.std()) / 20 + 0.05
    assert float(one.std() / eight.std()) == pytest.approx(math.sqrt(8), rel=0.25)


def test_dequantised_likelihood_is_a_bound_on_the_bins():
    """Eight grey levels of a one-dimensional Gaussian: never above a level's exact mass, in sum nearly all of it."""
    noise, bins = VP(t_min=1e-5).double(), 8
    gaussian = Gaussian(torch.tensor([0.1]).double(), torch.tensor([[0.09]]).double(), (1,))
    centres = 2 * (torch.arange(bins).double() + 0.5) / bins - 1
    x = centres.repeat(600)[:, None]
    nats = dequantised_log_likelihood(gaussian.denoiser(noise), noise, x, 60, Draws.of(0), bins=bins).double()
    estimate, error = nats.view(600, bins).mean(0), nats.view(600, bins).std(0) / 600**0.5
    law = torch.distributions.Normal(0.1, 0.3)
    mass = law.cdf(centres + 1 / bins) - law.cdf(centres - 1 / bins)
    assert (estimate < mass.log() + 4 * error).all()
    assert 0.9 < float(estimate.exp().sum()) < 1.0


def test_likelihood_reaches_a_network():
    """Any denoiser that is differentiable in x_t will do, images and vectors alike; no gradient is left on the way."""
    noise, layer = VP(), torch.nn.Linear(4, 4)

    def denoise(x_t, t):
        eps = layer(x_t.flatten(1)).view_as(x_t)
        return Prediction.from_eps(eps, x_t, *noise.scales(t))

    for shape in ((4,), (1, 2, 2)):
        nats = dequantised_log_likelihood(denoise, noise, torch.zeros(3, *shape), 5, Draws.of(0), probes=2)
        assert nats.shape == (3,) and nats.isfinite().all() and not nats.requires_grad
    assert layer.weight.grad is None


def test_mistakes_are_named(gaussian):
    """A user's mistake is one sentence that says what came."""
    noise, x_1 = VP(), torch.zeros(1, 1, 2, 2)
    with pytest.raises(UserError, match=r"unknown sampler 'dim'. Did you mean 'ddim'?"):
        step_named("dim")
    with pytest.raises(UserError, match=r"unknown spacing 'log_snr'. Did you mean 'log-snr'?"):
        sampling_of(True, "dpm", 5, "log_snr")
    with pytest.raises(UserError, match="without a sampler"):
        sampling_of(False, spacing="edm")
    with pytest.raises(UserError, match="at least one step, got 0"):
        sampling_of(True, steps=0).times(noise)
    with pytest.raises(UserError, match="without a sampler"):
        sampling_of(False, steps=0)
    with pytest.raises(UserError, match=r"in \(0, 1\], got 1.5"):
        times(noise, 5, start=1.5)
    with pytest.raises(UserError, match="got 2"):
        ddim(eta=2)
    with pytest.raises(UserError, match="got -1"):
        predictor_corrector(snr=-1)
    with pytest.raises(UserError, match="no random generator"):
        sample(gaussian.denoiser(noise), noise, x_1, ancestral, times(noise, 2))


def _saying(eps, noise):
    """A denoiser that has one answer."""
    return lambda x_t, t: Prediction.from_eps(eps, x_t, *noise.scales(t))
