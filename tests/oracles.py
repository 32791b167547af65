"""What is known without the library: Gaussian data and its exact denoiser, and the forward processes in closed form.

Everything here is written from the papers' formulas or from the algebra of Gaussians, in float64, so that a test
compares two routes. The one thing taken from the library is a process's alpha and sigma where a test is not about them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from diffrep.codes.posteriors import Code, Posterior
from diffrep.data.examples import Examples
from diffrep.data.stores import Grid, InMemory
from diffrep.denoising.denoiser import Prediction
from diffrep.denoising.noise import Noise


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


class ByLogSnr:
    """Signal and noise scale of a variance-preserving x_t, indexed by its log-SNR: what a network is told."""

    def scales(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


class ExactNetwork(nn.Module):
    """The network of an ideal denoiser of Gaussian data, for the parameterisation X: its output is E[x | x_t].

    Every process shows a network x_t in units of its own scale, which is variance preserving. `answer` (a parameter,
    one) multiplies the output; another value than one makes a denoiser that is wrong in a known way.
    """

    def __init__(self, gaussian: Gaussian, answer: float = 1.0):
        super().__init__()
        self.ideal = gaussian.denoiser(ByLogSnr())
        self.answer = nn.Parameter(torch.tensor(answer))

    def forward(self, x_t, log_snr, z=None, extra=None, drop=None):
        return self.answer * self.ideal(x_t, log_snr).x


def diffusion_nats(gaussian: Gaussian, gamma_0: float, gamma_1: float) -> float:
    """The continuous diffusion loss of the ideal denoiser: the mean error of eps along an axis of variance v is
    SNR v / (1 + SNR v), whose half integral over log-SNR is 1/2 log((1 + SNR_0 v) / (1 + SNR_1 v)); nats."""
    v = gaussian.spectrum[0]
    return float((torch.log1p(math.exp(-gamma_0) * v) - torch.log1p(math.exp(-gamma_1) * v)).sum() / 2)


def bound_nats(gaussian: Gaussian, gamma_0: float, gamma_1: float) -> float:
    """What the ideal denoiser's bound costs beyond -log p(x), on average: at the data end the density is that of
    x + sigma_0/alpha_0 noise, at the noise end KL(q(x_1) || N(0, I)); nats."""
    values, basis = gaussian.spectrum
    alpha2, sigma2 = 1 / (1 + math.exp(gamma_1)), 1 / (1 + math.exp(-gamma_1))
    start = torch.log1p(math.exp(gamma_0) / values).sum() / 2
    variance, mean2 = alpha2 * values + sigma2, alpha2 * (basis.T @ gaussian.mean) ** 2
    return float(start + (variance + mean2 - 1 - variance.log()).sum() / 2)


@dataclass(frozen=True)
class LinearGaussian:
    """Codes z ~ N(0, I) and data x = W z + noise n; W (D, d) has orthogonal columns, so that q(z | x) is diagonal."""

    weights: Tensor
    noise: float

    @classmethod
    def of(cls, dims: int, codes: int, noise: float = 0.3, seed: int = 0) -> LinearGaussian:
        generator = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(dims, codes, generator=generator, dtype=torch.float64))[0]
        return cls(basis * torch.linspace(0.5, 1, codes, dtype=torch.float64), noise)

    @property
    def data(self) -> Gaussian:
        dims = len(self.weights)
        covariance = self.weights @ self.weights.T + self.noise**2 * torch.eye(dims, dtype=torch.float64)
        return Gaussian(torch.zeros(dims, dtype=torch.float64), covariance, (dims,))

    @property
    def given_code(self) -> Gaussian:
        """x - W z, whatever z is."""
        dims = len(self.weights)
        return Gaussian(
            torch.zeros(dims, dtype=torch.float64), self.noise**2 * torch.eye(dims, dtype=torch.float64), (dims,)
        )

    @property
    def posterior(self) -> tuple[Tensor, Tensor]:
        """q(z | x) = N(A x, diag(spread^2)): A (d, D) and spread (d,), from the precision I + W'W / n^2."""
        variance = 1 / (1 + (self.weights**2).sum(0) / self.noise**2)
        return variance[:, None] * self.weights.T / self.noise**2, variance.sqrt()

    @property
    def information(self) -> float:
        """I(x; z) = 1/2 log det(I + W'W / n^2), nats: also the mean rate of the exact posterior."""
        return float(torch.log1p((self.weights**2).sum(0) / self.noise**2).sum() / 2)


@dataclass(frozen=True)
class LinearCode:
    """Any Gaussian code z = A x + spread n of data x ~ N(0, S), good or bad; matrix A (d, D), spread (d,).

    Where the codes have covariance V = A S A' + spread^2: E[x | z] = S A' V^-1 z, and all that a code is worth follows.
    """

    data: Gaussian
    matrix: Tensor
    spread: Tensor

    @property
    def posterior(self) -> tuple[Tensor, Tensor]:
        return self.matrix, self.spread

    @property
    def aggregate(self) -> Tensor:
        """V (d, d), the covariance of q(z) = N(0, V)."""
        return self.matrix @ self.data.covariance @ self.matrix.T + (self.spread**2).diag()

    @property
    def weights(self) -> Tensor:
        """W (D, d) of E[x | z] = W z."""
        return torch.linalg.solve(self.aggregate, self.matrix @ self.data.covariance).T

    @property
    def given_code(self) -> Gaussian:
        """x - W z, whatever z is."""
        rest = self.data.covariance - self.weights @ self.aggregate @ self.weights.T
        return Gaussian(torch.zeros_like(self.data.mean), rest, self.data.shape)

    @property
    def information(self) -> float:
        """I(x; z) = h(z) - h(z | x), nats."""
        return float(entropy(self.aggregate) - entropy((self.spread**2).diag()))

    @property
    def gap(self) -> float:
        """KL(q(z) || N(0, I)), nats."""
        zero = torch.zeros_like(self.spread)
        return float(gaussian_kl(zero, self.aggregate, zero, torch.eye(len(zero)).double()))

    @property
    def rate(self) -> float:
        """The mean over x of KL(N(A x, spread^2) || N(0, I)), nats."""
        variance = self.spread**2
        return float((self.aggregate.diagonal() - 1 - variance.log()).sum() / 2)


def profile_nats(data: Gaussian, given_code: Gaussian, log_snr: Tensor) -> Tensor:
    """The ideal information profile at log_snr (K,): half the difference of the mean errors of eps, each axis of
    variance v being off by SNR v / (1 + SNR v); nats per unit of log-SNR."""
    snr = log_snr.exp()[:, None]
    alone, given = (snr * g.spectrum[0] / (1 + snr * g.spectrum[0]) for g in (data, given_code))
    return (alone.sum(1) - given.sum(1)) / 2


class ExactConditional(nn.Module):
    """The network of the ideal denoiser that knows the code: E[x | x_t, z] = W z + E[x - W z | x_t - alpha W z].

    Without a code it is the ideal denoiser of the data.
    """

    def __init__(self, truth: LinearGaussian | LinearCode):
        super().__init__()
        self.register_buffer("weights", truth.weights.float())
        self.given, self.alone = truth.given_code.denoiser(ByLogSnr()), truth.data.denoiser(ByLogSnr())
        self.answer = nn.Parameter(torch.ones(()))

    def forward(self, x_t, log_snr, z=None, extra=None, drop=None):
        if z is None:
            return self.answer * self.alone(x_t, log_snr).x
        part = z @ self.weights.T
        alpha, _ = ByLogSnr().scales(log_snr)
        return self.answer * (part + self.given(x_t - alpha[:, None] * part, log_snr).x)


class ExactPosterior(Posterior):
    """q(z | x) of a `LinearGaussian` or a `LinearCode`."""

    deterministic, timed = False, False

    def __init__(self, truth: LinearGaussian | LinearCode):
        super().__init__()
        matrix, spread = truth.posterior
        self.dim, self.encoder = len(spread), nn.Identity()
        self.register_buffer("matrix", matrix.float())
        self.register_buffer("spread", spread.float())

    def forward(self, x: Tensor, log_snr: Tensor | None = None) -> Code:
        return Code(x @ self.matrix.T, self.spread.expand(len(x), -1))


def examples_of(values: np.ndarray, bins: int | None = None, labels: Tensor | None = None) -> Examples:
    """An in-memory split of raw values (N, *shape), as `Examples`."""
    digests = np.arange(len(values) * 32).reshape(len(values), 32).astype(np.uint8)
    store = InMemory(Grid(bins).store(values))
    return Examples("made", "test", values.shape[1:], bins, labels, None, None, {}, "0" * 16, store, digests)


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
