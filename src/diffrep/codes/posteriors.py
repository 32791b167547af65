"""Codes q(z | x, t): a point, a Gaussian, or a few categorical variables."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.errors import UserError
from diffrep.nets.encoders import Encoder
from diffrep.shapes import CodeVector, Data, Time


class Family(ABC):
    """A family of distributions of z with a mean and a standard deviation `spread`, (B, d) each."""

    @abstractmethod
    def draw(self, mean: CodeVector, spread: CodeVector, noise: Tensor) -> CodeVector:
        """z (B, d) from standard normal numbers `noise` (B, d), differentiable in mean and spread."""

    @abstractmethod
    def log_prob(self, mean: CodeVector, spread: CodeVector, z: Tensor) -> Tensor:
        """(B,) log q(z | x), nats."""


@dataclass(frozen=True)
class Normal(Family):
    """z = mean + spread * noise."""

    def draw(self, mean: CodeVector, spread: CodeVector, noise: Tensor) -> CodeVector:
        return mean + spread * noise

    def log_prob(self, mean: CodeVector, spread: CodeVector, z: Tensor) -> Tensor:
        return (
            torch.distributions.Normal(mean, spread, validate_args=False).log_prob(z).sum(-1)
        )  # no check: the log of training reports NaN


@dataclass(frozen=True)
class OneHot(Family):
    """z is d / classes variables side by side, each one-hot; its mean is their probabilities.

    The gradient of a draw is that of the Gumbel-softmax at `temperature` (Jang et al. 2017, straight through).
    """

    classes: int
    temperature: float = 1.0

    def draw(self, mean: CodeVector, spread: CodeVector, noise: Tensor) -> CodeVector:
        scores = _log(mean) + gumbel(noise)
        soft = torch.softmax(scores.unflatten(-1, (-1, self.classes)) / self.temperature, -1).flatten(-2)
        return largest(scores, self.classes) + (soft - soft.detach())

    def log_prob(self, mean: CodeVector, spread: CodeVector, z: Tensor) -> Tensor:
        return (z * _log(mean)).sum(-1)


@dataclass(frozen=True)
class Code:
    """q(z | x) of a batch: mean (B, d) and standard deviation `spread` (B, d), None for a deterministic code."""

    mean: CodeVector
    spread: CodeVector | None = None
    family: Family = Normal()

    def sample(self, noise: Tensor) -> CodeVector:
        """z from standard normal numbers (B, d); a code without spread is its mean."""
        return self.mean if self.spread is None else self.family.draw(self.mean, self.spread, noise)

    def detached(self) -> Code:
        """The same numbers, without their gradient."""
        return replace(self, mean=self.mean.detach(), spread=None if self.spread is None else self.spread.detach())

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z | x), nats, of z (B, d) -> (B,), or of any z that the codes are broadcast to; needs a spread."""
        assert self.spread is not None
        return self.family.log_prob(self.mean, self.spread, z)


class Posterior(nn.Module, ABC):
    """x (and its noise level, where `timed`) -> Code with `dim` numbers."""

    encoder: Encoder
    dim: int
    timed: bool
    deterministic: bool

    @abstractmethod
    def forward(self, x: Data, log_snr: Time | None = None) -> Code: ...


class Deterministic(Posterior):
    """z = E(x), or E(x, t) (DRL, Eq. 5 and 8)."""

    deterministic = True

    def __init__(self, encoder: Encoder, dim: int, timed: bool = False):
        super().__init__()
        self.encoder, self.dim, self.timed = encoder, dim, timed
        self.mean = nn.Linear(encoder.features, dim)

    def forward(self, x: Data, log_snr: Time | None = None) -> Code:
        return Code(self.mean(self.encoder(x, log_snr if self.timed else None)).float())


class Gaussian(Posterior):
    """z ~ N(mean(x), spread(x)^2), diagonal (VDRL; Kingma and Welling 2014). The spread is near 1/2 at first."""

    deterministic = False

    def __init__(self, encoder: Encoder, dim: int, timed: bool = False, least_spread: float = 1e-3):
        super().__init__()
        self.encoder, self.dim, self.timed, self.least_spread = encoder, dim, timed, least_spread
        self.heads = nn.Linear(encoder.features, 2 * dim)

    def forward(self, x: Data, log_snr: Time | None = None) -> Code:
        mean, raw = self.heads(self.encoder(x, log_snr if self.timed else None)).float().chunk(2, -1)
        return Code(mean, F.softplus(raw - 0.5) + self.least_spread)


class FixedRate(Posterior):
    """z ~ N(mean(x), s^2), |mean| = sqrt(d (1 - s^2)) and s = exp(-rate / d): KL to N(0, I) is `rate`.

    Each example has the same rate by construction, in nats: 1/2 (|mean|^2 + d s^2 - d) - d log s. So the rate needs no
    weight, and no weight can make the code useless; the encoder learns the direction of the mean.
    """

    deterministic = False

    def __init__(self, encoder: Encoder, dim: int, rate: float, timed: bool = False):
        super().__init__()
        self.encoder, self.dim, self.timed, self.spread = encoder, dim, timed, math.exp(-rate / dim)
        self.mean = nn.Linear(encoder.features, dim)

    def forward(self, x: Data, log_snr: Time | None = None) -> Code:
        direction = F.normalize(self.mean(self.encoder(x, log_snr if self.timed else None)).float(), dim=1)
        mean = math.sqrt(self.dim * (1 - self.spread**2)) * direction
        return Code(mean, torch.full_like(mean, self.spread))


class Categorical(Posterior):
    """z: dim / classes independent categorical variables of `classes` values each, one-hot and side by side.

    The mean of a code is its probabilities, its spread the standard deviation sqrt(p (1 - p)) of the one-hot numbers.
    """

    deterministic = False

    def __init__(self, encoder: Encoder, dim: int, classes: int, timed: bool = False):
        super().__init__()
        if classes < 2 or dim % classes:
            raise UserError(f"a categorical code expects dim to be a multiple of classes >= 2, got {dim} and {classes}")
        self.encoder, self.dim, self.timed, self.family = encoder, dim, timed, OneHot(classes)
        self.scores = nn.Linear(encoder.features, dim)

    def forward(self, x: Data, log_snr: Time | None = None) -> Code:
        scores = self.scores(self.encoder(x, log_snr if self.timed else None)).float()
        p = torch.softmax(scores.unflatten(-1, (-1, self.family.classes)), -1).flatten(-2)
        return Code(p, (p * (1 - p)).clamp(min=1e-12).sqrt(), self.family)


def gumbel(noise: Tensor) -> Tensor:
    """Standard normal numbers -> standard Gumbel numbers, -log(-log Phi(noise))."""
    return -torch.log(-torch.special.log_ndtr(noise))


def largest(scores: Tensor, classes: int) -> Tensor:
    """(B, n classes) -> one-hot where each run of `classes` numbers is largest, like scores."""
    runs = scores.unflatten(-1, (-1, classes))
    return F.one_hot(runs.argmax(-1), classes).to(scores).flatten(-2)


def _log(probability: Tensor) -> Tensor:
    return probability.clamp(min=1e-12).log()
