"""Priors p(z) over codes."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from diffrep.codes.posteriors import Code, gumbel, largest
from diffrep.shapes import CodeVector, Draws, PerExample

SHARES = (0.0, 0.1, 0.3, 0.5, 0.8)  # of the mean covariance in that of each component


class Prior(nn.Module, ABC):
    """A distribution p(z) over codes, with samples, densities and the rate of a code."""

    @abstractmethod
    def sample(self, n: int, draws: Draws) -> CodeVector:
        """(n, d) codes."""

    @abstractmethod
    def log_prob(self, z: CodeVector) -> PerExample:
        """(B,) log p(z), nats, or a lower bound on it."""

    @abstractmethod
    def rate(self, code: Code, z: CodeVector) -> PerExample:
        """(B,) KL(q(z | x) || p(z)) in nats: exact where there is a closed form, else the one-sample estimate at z ~
        q."""

    @abstractmethod
    def fit(self, codes: Tensor) -> None:
        """Fit to codes (N, d) of the training data, after training; for priors that training does not fit."""


class Joint(Prior):
    """A prior whose parameters are trained together with the codes, so that nothing is left to fit.

    The rate then falls to E_x KL(q(z | x) || q(z)), the information in the code, as p(z) nears the aggregate q(z).
    """

    def __init__(self, prior: Prior):
        super().__init__()
        self.prior = prior

    def sample(self, n: int, draws: Draws) -> CodeVector:
        return self.prior.sample(n, draws)

    def log_prob(self, z: CodeVector) -> PerExample:
        return self.prior.log_prob(z)

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        return self.prior.rate(code, z)

    def fit(self, codes: Tensor) -> None:
        """Does nothing: training has fitted it to draws of q(z | x), and `codes` are only their means."""


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def fit(self, codes: Tensor) -> None:
        """Does nothing: N(0, I) has no parameters."""

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
        """codes (N, d): sets mean and covariance (with a small ridge, so that it is positive definite for few
        codes)."""
        codes = codes.double()
        centred = codes - codes.mean(0)
        covariance = centred.T @ centred / max(len(codes) - 1, 1)
        ridge = 1e-4 * covariance.diagonal().mean() + 1e-12
        factor = torch.linalg.cholesky(covariance + ridge * torch.eye(codes.shape[1]).to(codes))
        self.mean.copy_(codes.mean(0))
        self.factor.copy_(factor)

    def white(self, z: CodeVector) -> CodeVector:
        """Codes in coordinates in which this normal is N(0, I)."""
        return torch.linalg.solve_triangular(self.factor, (z - self.mean).T, upper=False).T

    def coloured(self, white: CodeVector) -> CodeVector:
        """The inverse of `white`."""
        return self.mean + white @ self.factor.T

    def sample(self, n: int, draws: Draws) -> CodeVector:
        return self.coloured(draws.normal(n, len(self.mean)))

    def log_prob(self, z: CodeVector) -> PerExample:
        return torch.distributions.MultivariateNormal(self.mean, scale_tril=self.factor).log_prob(z)

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        return code.log_prob(z) - self.log_prob(z)


class Whitened(Prior):
    """Another prior, on whitened codes: the codes that it is fitted to have mean 0 and covariance I.

    Deterministic codes may have any scale, and may nearly lie in a few directions.
    """

    def __init__(self, dim: int, prior: Prior):
        super().__init__()
        self.normal, self.prior = FittedNormal(dim), prior

    def fit(self, codes: Tensor) -> None:
        codes = codes.to(self.normal.mean)
        self.normal.fit(codes)
        self.prior.fit(self.normal.white(codes))

    def sample(self, n: int, draws: Draws) -> CodeVector:
        return self.normal.coloured(self.prior.sample(n, draws))

    def log_prob(self, z: CodeVector) -> PerExample:
        return self.prior.log_prob(self.normal.white(z)) - self.normal.factor.diagonal().log().sum()

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        return code.log_prob(z) - self.log_prob(z)


class Mixture(Prior):
    """p(z) = sum_k w_k N(z; mean_k, spread_k^2), diagonal. At first it is near N(0, I): each spread is 1, means are
    small."""

    def __init__(self, dim: int, components: int):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(components))  # w = softmax(scores)
        self.means = nn.Parameter(0.5 * torch.randn(components, dim))
        self.log_spreads = nn.Parameter(torch.zeros(components, dim))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """codes (N, d) of about unit variance: expectation maximisation from one seeded start.

        Fewer than two codes for a component leave the last components without weight.
        """
        count = max(1, min(len(self.scores), len(codes) // 2))
        mixture = mixture_of(codes.double().cpu().numpy(), count, covariance_type="diag", reg_covar=1e-4, tol=1e-4)
        self.scores.fill_(-torch.inf)
        self.scores[:count] = torch.from_numpy(mixture.weights_).log()
        self.means[:count] = torch.from_numpy(mixture.means_)
        self.log_spreads[:count] = torch.from_numpy(mixture.covariances_).log() / 2

    def sample(self, n: int, draws: Draws) -> CodeVector:
        chosen = (self.scores + gumbel(draws.normal(n, len(self.scores)))).argmax(1)
        return self.means[chosen] + self.log_spreads[chosen].exp() * draws.normal(n, self.means.shape[1])

    def log_prob(self, z: CodeVector) -> PerExample:
        distance = (((z[:, None] - self.means) * (-self.log_spreads).exp()) ** 2).sum(-1)
        volume = self.log_spreads.sum(-1) + 0.5 * math.log(2 * math.pi) * z.shape[1]
        return torch.logsumexp(torch.log_softmax(self.scores, 0) - 0.5 * distance - volume, 1)

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        return code.log_prob(z) - self.log_prob(z)


class Afterwards(Prior):
    """N(0, I) in training; then a mixture of full Gaussians that is fitted to the codes.

    The rate contains KL(q(z) || p(z)), which holds no information on x. A prior that is trained with the codes removes
    it but pulls codes into its components; a prior that is fitted after training removes it and changes no code.
    most: largest number of components. Of their numbers, and of the shares by which each covariance is drawn to the
    mean of all, those with the best density of held-out codes are taken.
    """

    scores: Tensor
    means: Tensor
    whitening: Tensor
    fitted: Tensor

    def __init__(self, dim: int, most: int):
        super().__init__()
        self.normal = StandardNormal(dim)
        self.register_buffer("scores", torch.zeros(most))  # log weights
        self.register_buffer("means", torch.zeros(most, dim))
        self.register_buffer("whitening", torch.eye(dim).repeat(most, 1, 1))  # (z - mean) @ whitening ~ N(0, I)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """codes (N, d): expectation maximisation from one seeded start; a tenth of them, the last, are held out."""
        held = max(1, len(codes) // 10)
        train, valid = (some.double().cpu().numpy() for some in (codes[:-held], codes[-held:]))
        most, dim = self.means.shape
        best = mixture_of(train, 1)
        highest = best.score(valid)
        for number in (*(n for n in (3, 10, 30, 100) if n < most), most):
            if number == 1 or number * dim > len(train):
                break
            mixture = mixture_of(train, number, max_iter=20)
            tried = [(near.score(valid), near) for near in (shrunk(mixture, share) for share in SHARES)]
            score, near = max(tried, key=lambda pair: pair[0])
            if score <= highest:
                break
            highest, best = score, near
        count = len(best.weights_)
        self.scores.fill_(-torch.inf)
        self.scores[:count] = torch.from_numpy(best.weights_).log()
        self.means[:count] = torch.from_numpy(best.means_)
        self.whitening[:count] = torch.from_numpy(best.precisions_cholesky_)
        self.fitted.fill_(True)

    def sample(self, n: int, draws: Draws) -> CodeVector:
        if not self.fitted:
            return self.normal.sample(n, draws)
        chosen = (self.scores + gumbel(draws.normal(n, len(self.scores)))).argmax(1)
        noise = draws.normal(n, self.means.shape[1])
        return self.means[chosen] + torch.linalg.solve(self.whitening[chosen].mT, noise)

    def log_prob(self, z: CodeVector) -> PerExample:
        if not self.fitted:
            return self.normal.log_prob(z)
        white = torch.einsum("bki,kij->bkj", z[:, None] - self.means, self.whitening)
        volume = self.whitening.diagonal(dim1=1, dim2=2).log().sum(1) - 0.5 * math.log(2 * math.pi) * z.shape[1]
        return torch.logsumexp(self.scores + volume - 0.5 * (white**2).sum(-1), 1)

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        return code.log_prob(z) - self.log_prob(z) if self.fitted else self.normal.rate(code, z)


class Categories(Prior):
    """p(z) of a categorical code: independent variables, each with learned probabilities of its classes.

    It is trained with the codes; at first it is uniform.
    """

    def __init__(self, variables: int, classes: int):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(variables, classes))

    def fit(self, codes: Tensor) -> None:
        """Does nothing: training has fitted it."""

    def sample(self, n: int, draws: Draws) -> CodeVector:
        scores = self.scores.detach().flatten()
        return largest(scores + gumbel(draws.normal(n, len(scores))), self.scores.shape[1])

    def log_prob(self, z: CodeVector) -> PerExample:
        return (z * torch.log_softmax(self.scores, 1).flatten()).sum(-1)

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        """Exact: sum p (log p - log prior) over variables and classes; z is not used."""
        p = code.mean
        return torch.xlogy(p, p.clamp(min=1e-12)).sum(-1) - self.log_prob(p)


def descend(
    prior: Prior, surprise: Callable[[Tensor], Tensor], codes: Tensor, steps: int, lr: float, smooth: float = 0.02
) -> None:
    """Fit a prior to codes (N, d) of unit variance with Adam; the parameters with the best held-out loss are kept.

    surprise: codes (B, d) -> nats (B,). smooth: standard deviation of the noise that is added to codes, since codes on
    a surface of fewer dimensions have no density. A tenth of the codes is held out. The same codes give the same fit.
    """
    frozen, mode = {name for name, p in prior.named_parameters() if not p.requires_grad}, prior.training
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(codes), generator=generator).to(codes.device)
    valid, train = codes[order[: len(codes) // 10]], codes[order[len(codes) // 10 :]]
    valid = valid if len(valid) else train
    best, least = {name: p.detach().clone() for name, p in prior.named_parameters()}, math.inf
    prior.train().requires_grad_(True)
    optimizer = torch.optim.Adam(prior.parameters(), lr=lr)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.enable_grad():
        for step in range(steps):
            rows = torch.randint(len(train), (min(128, len(train)),), generator=generator).to(codes.device)
            noise = torch.randn(len(rows), codes.shape[1], generator=generator).to(codes)
            optimizer.zero_grad()
            surprise(train[rows] + smooth * noise).mean().backward()
            nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
            optimizer.step()
            rates.step()
            if (step + 1) % 50 == 0 or step + 1 == steps:
                with torch.no_grad():
                    cost = float(surprise(valid).mean())
                if cost < least:
                    best, least = {name: p.detach().clone() for name, p in prior.named_parameters()}, cost
    prior.train(mode)
    with torch.no_grad():
        for name, parameter in prior.named_parameters():
            parameter.copy_(best[name])
            parameter.requires_grad_(name not in frozen)


def shrunk(mixture: GaussianMixture, share: float) -> GaussianMixture:
    """A mixture of full Gaussians, each of whose covariances is (1 - share) its own + share the mean of all, weighted:
    the variance of many numbers from few codes is a poor guess (Friedman 1989)."""
    common = np.tensordot(mixture.weights_, mixture.covariances_, 1)
    near = copy(mixture)
    near.covariances_ = (1 - share) * mixture.covariances_ + share * common
    near.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(near.covariances_)).transpose(0, 2, 1)
    return near


def mixture_of(
    codes: np.ndarray,
    count: int,
    covariance_type: str = "full",
    reg_covar: float = 1e-3,
    max_iter: int = 300,
    tol: float = 1e-3,
) -> GaussianMixture:
    """scikit-learn's mixture of `count` Gaussians, fitted to codes (N, d) from one seeded start.

    A mixture that has not converged is a density too and a user cannot act on scikit-learn's warning, so it is not
    shown.
    """
    mixture = GaussianMixture(
        count, covariance_type=covariance_type, reg_covar=reg_covar, max_iter=max_iter, tol=tol, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(codes)
