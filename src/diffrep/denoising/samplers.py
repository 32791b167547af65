"""Samplers: one loop over falling noise levels, and the steps that it can take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffrep.denoising.denoiser import Prediction
from diffrep.denoising.noise import Noise
from diffrep.denoising.spacing import spacing_named, times
from diffrep.errors import UserError, unknown
from diffrep.shapes import Data, Draws, Time

Denoise = Callable[[Data, Time], Prediction]  # (x_t, t) -> Prediction; a code, where there is one, is bound already


@dataclass(frozen=True)
class Level:
    """One noise level, the same for every example: t, log alpha and log sigma, each a tensor of shape ()."""

    t: Tensor
    log_alpha: Tensor
    log_sigma: Tensor

    @property
    def alpha(self) -> Tensor:
        return self.log_alpha.exp()

    @property
    def sigma(self) -> Tensor:
        return self.log_sigma.exp()

    @property
    def log_snr(self) -> Tensor:
        return 2 * (self.log_alpha - self.log_sigma)

    @property
    def ratio(self) -> Tensor:
        """sigma / alpha: the time in which the probability flow of x_t / alpha has slope eps."""
        return (self.log_sigma - self.log_alpha).exp()

    def ask(self, denoise: Denoise, x: Data) -> Prediction:
        """The denoiser's prediction for examples x (B, ...) at this level."""
        return denoise(x, self.t.expand(len(x)))


@dataclass(frozen=True)
class State:
    """The state of a sampler: x_t, and, for multistep methods, x_hat and noise level of the step before."""

    x_t: Data
    x_hat: Data | None = None
    level: Level | None = None


Step = Callable[[Denoise, State, Level, Level, Draws | None], State]  # from level t to level s, with random numbers


@torch.no_grad()
def levels(noise: Noise, times: Tensor) -> list[Level]:
    """The noise levels at `times` (K,)."""
    return [Level(*numbers) for numbers in zip(times, *noise.log_scales(times), strict=True)]


@torch.no_grad()
def sample(
    denoise: Denoise,
    noise: Noise,
    x_1: Data,
    step: Step,
    times: Tensor,
    draws: Draws | None = None,
    last: bool = True,
) -> Data:
    """Take x_1 through the noise levels at `times` (K,); like x_1.

    last: return the denoiser's x at the last level, which removes the remaining noise (Jolicoeur-Martineau et al. 2021
    measured the loss in quality without it). draws: the random generator, for steps that need one; without it such a
    step raises UserError.
    """
    walk = levels(noise, times)
    state = State(x_1)
    for t, s in pairwise(walk):
        state = step(denoise, state, t, s, draws)
    return walk[-1].ask(denoise, state.x_t).x if last else state.x_t


def ddim(eta: float = 0.0) -> Step:
    """DDIM (J. Song et al. 2021, Eq. 12) for any alpha and sigma; eta from 0, deterministic, to 1, ancestral.

    x_s = alpha_s x_hat + sigma_s (sqrt(1 - eta^2 c) eps_hat + eta sqrt(c) noise), c = 1 - SNR_t / SNR_s.
    """
    if not 0 <= eta <= 1:
        raise UserError(f"ddim expects eta in [0, 1], got {eta}. 0 is deterministic, 1 is the ancestral sampler.")

    def step(denoise: Denoise, state: State, t: Level, s: Level, draws: Draws | None) -> State:
        hat = t.ask(denoise, state.x_t)
        c = _renewed(t, s)
        eps = (1 - eta**2 * c).sqrt() * hat.eps
        if eta > 0:
            eps = eps + eta * c.sqrt() * _normal(state.x_t, draws)
        return State(s.alpha * hat.x + s.sigma * eps)

    return step


ancestral: Step = ddim(eta=1.0)  # a draw from q(x_s | x_t, x_hat) (VDM, Appendix A)


def heun(denoise: Denoise, state: State, t: Level, s: Level, draws: Draws | None) -> State:
    """Heun's second-order step of d(x / alpha) = eps_hat d(sigma / alpha) (Karras et al. 2022, Alg. 1), in either
    direction."""
    eps = t.ask(denoise, state.x_t).eps
    return State(heun_from(eps, denoise, state.x_t, t, s))


def heun_from(eps: Data, denoise: Denoise, x_t: Data, t: Level, s: Level) -> Data:
    """Heun's x_s from a given eps_hat at (x_t, t): one more call of the denoiser, at the Euler point."""
    y, by = x_t / t.alpha, s.ratio - t.ratio
    ahead = s.ask(denoise, s.alpha * (y + by * eps)).eps
    return s.alpha * (y + by * (eps + ahead) / 2)


def dpm_solver_2m(denoise: Denoise, state: State, t: Level, s: Level, draws: Draws | None) -> State:
    """DPM-Solver++(2M) (Lu et al. 2022, Alg. 2): second order with one call a step; the first step is DDIM's."""
    x_hat = t.ask(denoise, state.x_t).x
    decay = torch.expm1((t.log_snr - s.log_snr) / 2)
    x_s = s.sigma / t.sigma * state.x_t - s.alpha * decay * _midway(x_hat, state, t, s)
    return State(x_s, x_hat, t)


def sde_dpm_solver_2m(denoise: Denoise, state: State, t: Level, s: Level, draws: Draws | None) -> State:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, Section 5): `dpm_solver_2m` of the SDE; the first step is ancestral.

    x_s = sqrt(1 - c) sigma_s / sigma_t x_t + c alpha_s x_hat + sigma_s sqrt(c) noise, c = 1 - SNR_t / SNR_s, with x_hat
    extrapolated from two levels: few steps keep the variance, which the ancestral sampler loses in them.
    """
    x_hat = t.ask(denoise, state.x_t).x
    c = _renewed(t, s)
    mean = (1 - c).sqrt() * s.sigma / t.sigma * state.x_t + c * s.alpha * _midway(x_hat, state, t, s)
    return State(mean + s.sigma * c.sqrt() * _normal(state.x_t, draws), x_hat, t)


def _renewed(t: Level, s: Level) -> Tensor:
    """c = 1 - SNR_t / SNR_s: the share of the noise at s that an ancestral step draws anew; ()."""
    return -torch.expm1(t.log_snr - s.log_snr)


def _midway(x_hat: Data, state: State, t: Level, s: Level) -> Data:
    """x_hat in the middle of a step in log-SNR, extrapolated from those of this level and of the one before."""
    if state.x_hat is None or state.level is None:
        return x_hat
    r = (t.log_snr - state.level.log_snr) / (s.log_snr - t.log_snr)
    return x_hat + (x_hat - state.x_hat) / (2 * r)


def cas(eta: float | None = None) -> Step:
    """Consistent annealed sampling (Jolicoeur-Martineau et al. 2021, Algorithm 2), for any alpha and sigma.

    Their x_s = x_t + eta sigma_t^2 score + beta sigma_s noise (alpha = 1), beta = sqrt(1 - ((1 - eta) / gamma)^2) and
    gamma = sigma_s / sigma_t: the remaining noise and the new noise add up to sigma_s for every eta. With alpha, ratios
    sigma / alpha replace sigma. eta: the share of the noise that a step removes; values below 1 - gamma, which would
    leave more than sigma_s, count as 1 - gamma. The paper searches eta for each data set; None: midway between
    1 - gamma, the deterministic step, and 1 - gamma^2, the ancestral one.
    """
    if eta is not None and not 0 <= eta <= 1:
        raise UserError(
            f"cas expects eta in [0, 1], got {eta}. Small values are deterministic, 1 replaces all noise by new noise."
        )

    def step(denoise: Denoise, state: State, t: Level, s: Level, draws: Draws | None) -> State:
        hat = t.ask(denoise, state.x_t)
        gamma = s.ratio / t.ratio
        taken = (1 - gamma) * (1 + gamma / 2) if eta is None else eta
        kept = ((1 - taken) / gamma).clamp(max=1)
        beta = (1 - kept**2).sqrt()
        return State(s.alpha * hat.x + s.sigma * (kept * hat.eps + beta * _normal(state.x_t, draws)))

    return step


def predictor_corrector(snr: float = 0.16, corrections: int = 1, predictor: Step = ancestral) -> Step:
    """A predictor's step, then Langevin steps at the level reached (Song et al. 2021, Algs. 1 and 4).

    The paper's step size 2 (snr |noise| / |score|)^2 is taken with the norms that an ideal denoiser has at high noise,
    |noise| = sigma |score|: 2 (snr sigma)^2, which leaves examples independent of each other.
    """
    if snr <= 0 or corrections < 0:
        raise UserError(f"predictor_corrector expects snr > 0 and corrections >= 0, got {snr} and {corrections}.")

    def step(denoise: Denoise, state: State, t: Level, s: Level, draws: Draws | None) -> State:
        state = predictor(denoise, state, t, s, draws)
        x = state.x_t
        for _ in range(corrections):
            size = 2 * (snr * s.sigma) ** 2
            score = -s.ask(denoise, x).eps / s.sigma
            x = x + size * score + (2 * size).sqrt() * _normal(x, draws)
        return State(x, state.x_hat, state.level)

    return step


STEPS: dict[str, Step] = {
    "ancestral": ancestral,
    "ddim": ddim(),
    "heun": heun,
    "dpm": dpm_solver_2m,
    "sde-dpm": sde_dpm_solver_2m,
    "pc": predictor_corrector(),
    "cas": cas(),
}


@dataclass(frozen=True)
class Sampling:
    """A sampler by name, its number of steps, and how these are spaced: a name in `spacing.SPACINGS`."""

    sampler: str = "sde-dpm"
    steps: int = 20
    spacing: str = "log-snr"

    @property
    def step(self) -> Step:
        return step_named(self.sampler)

    def times(self, noise: Noise, start: float = 1.0) -> Tensor:
        """The steps + 1 times, falling from `start` to 0."""
        return times(noise, self.steps, start, self.spacing)


USUAL = Sampling()  # 20 steps are as good as 250 ancestral ones (docs/speed.md)
SMOOTH = Sampling("dpm")  # without random numbers of its own, so that like codes become like examples
ENOUGH = {name: 10 if name in ("heun", "pc") else USUAL.steps for name in STEPS}  # steps; those two call twice in each


def step_named(name: str) -> Step:
    """The sampler of that name, as the command line gives it; UserError where there is none."""
    if name not in STEPS:
        raise unknown("sampler", name, STEPS)
    return STEPS[name]


def sampling_named(
    sampler: str | None = None, steps: int | None = None, spacing: str | None = None, usual: Sampling = USUAL
) -> Sampling:
    """The sampling of these options; None: what is `usual`, and enough steps for a sampler. UserError: no such name."""
    sampler, spacing = sampler or usual.sampler, spacing or usual.spacing
    step_named(sampler)
    spacing_named(spacing)
    return Sampling(sampler, ENOUGH[sampler] if steps is None else steps, spacing)


def sampling_of(
    by_steps: bool,
    sampler: str | None = None,
    steps: int | None = None,
    spacing: str | None = None,
    usual: Sampling = USUAL,
) -> Sampling:
    """As `sampling_named`; UserError too where an option is given for a model that decodes without a sampler."""
    asked = sampling_named(sampler, steps, spacing, usual)
    if not by_steps and (sampler, steps, spacing) != (None, None, None):
        raise UserError("this model decodes at once, without a sampler: leave out the sampler, its steps and spacing.")
    return asked


def _normal(like: Data, draws: Draws | None) -> Data:
    if draws is None:
        raise UserError("this sampler draws noise and has no random generator. Pass draws=Draws.of(seed), or use ddim.")
    return draws.normal(*like.shape).to(like)
