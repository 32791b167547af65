"""Distances of two sets of examples from their features: Frechet and kernel distance, precision and recall.

Features are (N, d) tensors of any function; everything is computed in float64 on the CPU. All of these depend on the
features and on N, so `compare` returns N with them, and its caller names the features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from diffrep.errors import UserError

PROTOCOL = "distance-1"  # moments with N - 1, cubic kernel in 10 disjoint blocks, third neighbours
BLOCKS = 10
NEIGHBOURS = 3  # Kynkaanniemi et al. 2019


@dataclass(frozen=True)
class Moments:
    """Count N, mean (d,) and scatter (d, d), the sum of (x - mean)(x - mean)^T, of features, in one pass."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Of (N, d) features, N >= 1."""
        x = _checked(features)
        mean = x.mean(0)
        return cls(len(x), mean, (x - mean).T @ (x - mean))

    def merge(self, other: Moments) -> Moments:
        """Of both sets together (Chan et al. 1979)."""
        count, apart = self.count + other.count, other.mean - self.mean
        between = torch.outer(apart, apart) * (self.count * other.count / count)
        mean = self.mean + apart * (other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Tensor:
        """(d, d), unbiased."""
        if self.count < 2:
            raise UserError(f"a covariance needs two examples at least, got {self.count}; give more.")
        return self.scatter / (self.count - 1)


def moments(batches: Iterable[Tensor]) -> Moments:
    """Of all batches (B, d) together, in one pass; they may differ in size."""
    total: Moments | None = None
    for batch in batches:
        total = Moments.of(batch) if total is None else total.merge(Moments.of(batch))
    if total is None:
        raise UserError("there are no features to take moments of; give one batch at least.")
    return total


def frechet(a: Moments, b: Moments) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), the Frechet distance of two Gaussians (Heusel et al. 2017).

    The trace of the last root is the sum of the singular values of S_a^(1/2) S_b^(1/2): it needs symmetric roots only,
    so covariances may lack full rank (N <= d). The squared Wasserstein-2 distance; "FID" where features are
    those of Inception. Biased upwards by an amount that falls as 1 / N.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(f"expected features of one size, got {len(a.mean)} and {len(b.mean)}; use one function.")
    cross = torch.linalg.svdvals(_root(a.covariance) @ _root(b.covariance)).sum()
    traces = torch.trace(a.covariance) + torch.trace(b.covariance) - 2 * cross
    return max(0.0, float((a.mean - b.mean).square().sum() + traces))


def kernel_distance(a: Tensor, b: Tensor, blocks: int = BLOCKS, seed: int = 0) -> tuple[float, float]:
    """Squared MMD under k(x, y) = (x . y / d + 1)^3 and its standard error (Binkowski et al. 2018, "KID").

    The mean of unbiased estimates, so negative by chance where both sets come from one distribution, over `blocks`
    disjoint blocks of both sets (the paper draws 100 overlapping blocks of 1,000, whose standard deviation is no
    standard error). Examples are shuffled first by `seed`, since sets may come sorted.
    """
    a, b = _checked(a), _checked(b)
    if blocks < 2:
        raise UserError(f"expected two or more blocks, got {blocks}: the error is that of their mean.")
    if min(len(a), len(b)) < 2 * blocks:
        raise UserError(
            f"expected at least {2 * blocks} examples in both sets, two for each block, got {len(a)} and {len(b)}: give"
            " more, such as a test split of a larger share (data.test)."
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = (x[torch.randperm(len(x), generator=generator)].tensor_split(blocks) for x in (a, b))
    values = torch.stack([_mmd(x, y) for x, y in zip(*shuffled, strict=True)])
    return float(values.mean()), float(values.std() / blocks**0.5)


def precision_recall(real: Tensor, fake: Tensor, k: int = NEIGHBOURS, chunk: int = 1000) -> tuple[float, float]:
    """Share of fake examples among the real ones, and of real among the fake (Kynkaanniemi et al. 2019, Eqs. 1 and 2).

    An example is among a set when it lies within the distance of some member to that member's k-th neighbour in the
    set. Memory O(chunk N).
    """
    real, fake = _checked(real), _checked(fake)
    if min(len(real), len(fake)) <= k:
        raise UserError(f"expected more than {k} examples in both sets, got {len(real)} and {len(fake)}; give more.")
    return _covered(fake, real, k, chunk), _covered(real, fake, k, chunk)


class Distances(TypedDict):
    """Distances of two sets of features, and the number of examples in each."""

    frechet: float
    kid: float
    kid_se: float
    precision: float
    recall: float
    samples: int
    against: int


def compare(real: Tensor, fake: Tensor) -> Distances:
    """All distances of two sets of features (N, d)."""
    kid, error = kernel_distance(real, fake)
    precision, recall = precision_recall(real, fake)
    return {
        "frechet": frechet(Moments.of(real), Moments.of(fake)),
        "kid": kid,
        "kid_se": error,
        "precision": precision,
        "recall": recall,
        "samples": len(fake),
        "against": len(real),
    }


def _checked(features: Tensor) -> Tensor:
    x = features.detach().to("cpu", torch.float64)
    if x.ndim != 2 or not len(x):
        raise UserError(f"expected features of shape (N, d), got {tuple(x.shape)}")
    if not x.isfinite().all():
        raise UserError("features are NaN or infinite; so are the samples, or the network that reads them is broken.")
    return x


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance; eigenvalues that rounding made negative count as zero."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _mmd(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate (Gretton et al. 2012, Eq. 3): no example is compared with itself."""
    within = [(_kernel(z, z).sum() - (z.square().mean(1) + 1).pow(3).sum()) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return within[0] + within[1] - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _covered(queries: Tensor, members: Tensor, k: int, chunk: int) -> float:
    """Share of queries (M, d) within the k-th neighbour's distance of some member (N, d)."""
    rows = range(0, len(members), chunk)
    near = [torch.cdist(members[i : i + chunk], members).topk(k + 1, largest=False).values[:, -1] for i in rows]
    radius = torch.cat(near)  # the nearest of all is the member itself
    inside = sum(int((torch.cdist(some, members) <= radius).any(1).sum()) for some in queries.split(chunk))
    return inside / len(queries)
