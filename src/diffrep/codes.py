"""Codes q(z | x, t): a point, or a Gaussian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.nets.encoders import Encoder
from diffrep.shapes import CodeVector, Data, Time


@dataclass(frozen=True)
class Code:
    """What an encoder says about x: mean (B, d) and, where it is uncertain, the standard deviation `spread` (B, d)."""

    mean: CodeVector
    spread: CodeVector | None = None

    def sample(self, noise: Tensor) -> CodeVector:
        """z = mean + spread * noise; a code without spread is its mean."""
        return self.mean if self.spread is None else self.mean + self.spread * noise

    def log_prob(self, z: CodeVector) -> Tensor:
        """(B,) log q(z | x), nats; needs a spread."""
        assert self.spread is not None
        return torch.distributions.Normal(self.mean, self.spread).log_prob(z).sum(-1)


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
    """z ~ N(mean(x), spread(x)^2), diagonal (VDRL; Kingma and Welling 2014). Spread starts near 1/2."""

    deterministic = False

    def __init__(self, encoder: Encoder, dim: int, timed: bool = False, least_spread: float = 1e-3):
        super().__init__()
        self.encoder, self.dim, self.timed, self.least_spread = encoder, dim, timed, least_spread
        self.heads = nn.Linear(encoder.features, 2 * dim)

    def forward(self, x: Data, log_snr: Time | None = None) -> Code:
        mean, raw = self.heads(self.encoder(x, log_snr if self.timed else None)).float().chunk(2, -1)
        return Code(mean, F.softplus(raw - 0.5) + self.least_spread)
