"""What is known without the library: Gaussian data and its exact denoiser, and the forward processes in closed form.

Everything here is written from the papers' formulas or from the algebra of Gaussians, in float64, so that a test
compares two routes. The one thing taken from the library is a process's alpha and sigma where a test is not about them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diffrep.denoiser import Prediction
from diffrep.noise import Noise


@dataclass(frozen=True)
class Gaussian:
    """Data x ~ N(mean, covariance) with D numbers, shown as examples of `shape` (whose product is D).

    mean (D,), covariance (D, D); a covariance of zero is the data of a single point.
    """

    mean: Tensor
    covariance: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, *shape: int, seed: int = 0, diagonal: bool = False, scale: float = 1.0) -> Gaussian:
        """A Gaussian with a mean of about scale / 2 and standard deviations between scale / 5 and scale; float64."""
        generator = torch.Generator().manual_seed(seed)
        dims = math.prod(shape)
        deviations = scale * torch.linspace(0.2, 1, dims, dtype=torch.float64)
        basis = torch.linalg.qr(torch.randn(dims, dims, generator=generator, dtype=torch.float64))[0]
        basis = torch.eye(dims, dtype=torch.float64) if diagonal else basis
        mean = scale * torch.randn(dims, generator=generator, dtype=torch.float64) / 2
        return cls(mean, basis @ (deviations**2).diag() @ basis.T, shape)

    @classmethod
    def point(cls, x: Tensor) -> Gaussian:
        """The data whose every example is x."""
        return cls(x.flatten(), torch.zeros(x.numel(), x.numel(), dtype=x.dtype), tuple(x.shape))

    @property
    def dims(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (D,) and eigenvectors (D, D) of the covariance."""
        values, basis = torch.linalg.eigh(self.covariance)
        return values.clamp(min=0), basis

    def draw(self, batch: int, seed: int = 0) -> Tensor:
        """Clean data, (batch, *shape)."""
        return self._normal(batch, seed, self.spectrum[0].sqrt(), self.mean)

    def draw_noisy(self, noise: Noise, t: float, batch: int, seed: int = 0) -> Tensor:
        """x_t from p_t, (batch, *shape)."""
        alpha, sigma = _scales(noise, t)
        return self._normal(batch, seed, (alpha**2 * self.spectrum[0] + sigma**2).sqrt(), alpha * self.mean)

    def marginal(self, noise: Noise, t: float) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D) of p_t."""
        alpha, sigma = _scales(noise, t)
        return alpha * self.mean, alpha**2 * self.covariance + sigma**2 * torch.eye(self.dims, dtype=torch.float64)

    def denoiser(self, noise: Noise) -> Callable[..., Prediction]:
        """The ideal denoiser (x_t, t, z=None) -> Prediction with x = E[x | x_t]; any dtype, differentiable in x_t.

        In the eigenbasis E[eps | x_t] = sigma (x_t - alpha m) / (alpha^2 lambda + sigma^2) and E[x | x_t] = m +
        alpha lambda (x_t - alpha m) / (alpha^2 lambda + sigma^2), for each axis.
        """

        def denoise(x_t: Tensor, t: Tensor, z: Tensor | None = None) -> Prediction:
            alpha, sigma = noise.scales(t)
            values, basis, mean = (part.to(x_t) for part in (*self.spectrum, self.mean))
            a, s = alpha[:, None], sigma[:, None]
            whitened = (x_t.flatten(1) - a * mean) @ basis / (a**2 * values + s**2)
            x = mean + (a * values * whitened) @ basis.T
            eps = (s * whitened) @ basis.T
            return Prediction(x.view_as(x_t), eps.view_as(x_t), alpha, sigma)

        return denoise

    def score(self, noise: Noise, x_t: Tensor, t: float) -> Tensor:
        """grad log p_t at x_t, by solving with the covariance; like x_t."""
        mean, covariance = self.marginal(noise, t)
        return -torch.linalg.solve(covariance, (x_t.flatten(1).double() - mean).T).T.view(x_t.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """log density of the clean data, nats; (B,)."""
        return _log_normal(x, self.mean, self.covariance)

    def log_prob_noisy(self, noise: Noise, x_t: Tensor, t: float) -> Tensor:
        """log p_t(x_t), nats; (B,)."""
        return _log_normal(x_t, *self.marginal(noise, t))

    def flow(self, noise: Noise, x_t: Tensor, t: float, s: float) -> Tensor:
        """Where the probability flow takes x_t by time s, either way: in the eigenbasis it keeps (x_t - mean) / std."""
        values, basis = self.spectrum
        (a_t, s_t), (a_s, s_s) = _scales(noise, t), _scales(noise, s)
        stretch = ((a_s**2 * values + s_s**2) / (a_t**2 * values + s_t**2)).sqrt()
        moved = ((x_t.flatten(1).double() - a_t * self.mean) @ basis * stretch) @ basis.T + a_s * self.mean
        return moved.view(x_t.shape)

    def flow_log_prob(self, noise: Noise, x_0: Tensor, start_scale: float) -> Tensor:
        """log density at x_0 of N(0, start_scale^2) pushed through the flow from 1 to 0, nats; (B,)."""
        values = self.spectrum[0]
        (a_1, s_1), (a_0, s_0) = _scales(noise, 1.0), _scales(noise, 0.0)
        stretch = ((a_1**2 * values + s_1**2) / (a_0**2 * values + s_0**2)).log().sum() / 2
        prior = start_scale**2 * torch.eye(self.dims, dtype=torch.float64)
        return _log_normal(self.flow(noise, x_0, 0.0, 1.0), torch.zeros_like(self.mean), prior) + stretch

    def _normal(self, batch: int, seed: int, deviations: Tensor, mean: Tensor) -> Tensor:
        white = torch.randn(batch, self.dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return ((white * deviations) @ self.spectrum[1].T + mean).view(batch, *self.shape)


def gaussian_kl(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    """KL(N(mean, covariance) || N(other_mean, other_covariance)) in nats, (D,) and (D, D) each; ()."""
    gap = other_mean - mean
    inverse = torch.linalg.inv(other_covariance)
    volume = torch.linalg.slogdet(other_covariance)[1] - torch.linalg.slogdet(covariance)[1]
    return 0.5 * ((inverse @ covariance).trace() + gap @ inverse @ gap - len(mean) + volume)


def entropy(covariance: Tensor) -> Tensor:
    """Differential entropy of a Gaussian with that covariance, nats; ()."""
    return 0.5 * torch.linalg.slogdet(2 * math.pi * math.e * covariance)[1]


@dataclass(frozen=True)
class Forward:
    """A forward SDE dx = f x dt + g dw in closed form: its kernel N(alpha x, variance I), f and g^2, each like t."""

    alpha: Tensor
    variance: Tensor
    f: Tensor
    g2: Tensor


def ve(t: Tensor, sigma_min: float, sigma_max: float) -> Forward:
    """Song et al. 2021, Eqs. 30 and 31 (the kernel that starts at sigma_min, as all code has it)."""
    ratio = sigma_max / sigma_min
    variance = sigma_min**2 * ratio ** (2 * t)
    return Forward(torch.ones_like(t), variance, torch.zeros_like(t), variance * 2 * math.log(ratio))


def vp(t: Tensor, beta_min: float, beta_max: float) -> Forward:
    """Song et al. 2021, Eqs. 29, 32 and 33: f = -beta / 2, g^2 = beta, variance 1 - exp(-int beta)."""
    beta, integral = _beta(t, beta_min, beta_max)
    return Forward(torch.exp(-integral / 2), -torch.expm1(-integral), -beta / 2, beta)


def sub_vp(t: Tensor, beta_min: float, beta_max: float) -> Forward:
    """Song et al. 2021, Eqs. 27, 29: f = -beta / 2, g^2 = beta (1 - exp(-2 int beta)), deviation 1 - exp(-int beta)."""
    beta, integral = _beta(t, beta_min, beta_max)
    return Forward(torch.exp(-integral / 2), torch.expm1(-integral) ** 2, -beta / 2, -beta * torch.expm1(-2 * integral))


def fitted_order(steps: list[int], errors: list[float]) -> float:
    """The p of error ~ steps^-p, by least squares on logarithms."""
    x, y = torch.tensor(steps).double().log(), torch.tensor(errors).double().log()
    return -float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def _beta(t: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    return low + t * (high - low), t * low + t**2 * (high - low) / 2


def _scales(noise: Noise, t: float) -> tuple[Tensor, Tensor]:
    alpha, sigma = noise.scales(torch.tensor([t], dtype=torch.float64))
    return alpha.detach()[0], sigma.detach()[0]


def _log_normal(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x.flatten(1).double())
