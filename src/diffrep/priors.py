"""Priors p(z) over codes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from diffrep.codes import Code
from diffrep.shapes import CodeVector, Draws, PerExample


class Prior(nn.Module, ABC):
    """A distribution over codes that can be sampled, and that prices a code in nats."""

    @abstractmethod
    def sample(self, n: int, draws: Draws) -> CodeVector:
        """(n, d) codes."""

    @abstractmethod
    def rate(self, code: Code, z: CodeVector) -> PerExample:
        """(B,) KL(q(z | x) || p(z)) in nats, exact where it can be, else its one-sample estimate at z ~ q."""

    @abstractmethod
    def fit(self, codes: Tensor) -> None:
        """After training, from the codes (N, d) of the training data: for priors that are fitted then."""


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def fit(self, codes: Tensor) -> None:
        """N(0, I) has nothing to fit."""

    def sample(self, n: int, draws: Draws) -> CodeVector:
        return draws.normal(n, self.dim)

    def log_prob(self, z: CodeVector) -> PerExample:
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        assert code.spread is not None
        variance = code.spread**2
        return 0.5 * (code.mean**2 + variance - 1 - variance.log()).sum(-1)


class FittedNormal(Prior):
    """N(mean, covariance) fitted to the codes of the training data, so that deterministic codes can be sampled."""

    mean: Tensor
    factor: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("factor", torch.eye(dim))  # lower triangular: covariance = factor factor'

    def fit(self, codes: Tensor) -> None:
        """codes (N, d): sets mean and covariance (shrunk a little, so that few codes leave it positive)."""
        codes = codes.double()
        centred = codes - codes.mean(0)
        covariance = centred.T @ centred / max(len(codes) - 1, 1)
        ridge = 1e-4 * covariance.diagonal().mean() + 1e-12
        factor = torch.linalg.cholesky(covariance + ridge * torch.eye(codes.shape[1], dtype=codes.dtype))
        self.mean.copy_(codes.mean(0))
        self.factor.copy_(factor)

    def sample(self, n: int, draws: Draws) -> CodeVector:
        return self.mean + draws.normal(n, len(self.mean)) @ self.factor.T

    def log_prob(self, z: CodeVector) -> PerExample:
        return torch.distributions.MultivariateNormal(self.mean, scale_tril=self.factor).log_prob(z)

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        return code.log_prob(z) - self.log_prob(z)
