"""What every module shares: five shapes, a batch, its random generator, and the terms of a loss.

Glossary. x: clean data, in [-1, 1] (tables: standardised). x_t = alpha x + sigma eps: noisy data. t in [0, 1]: 0 is
data, 1 is noise; s < t. log_snr = log(alpha^2 / sigma^2); gamma = -log_snr. z: the code, and only the code.
rate = KL(q(z | x) || p(z)), nats. bits/dim: the bound at weight one, divided by D ln 2.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Data = Float[Tensor, "batch channels *spatial"]  # images (B, C, H, W), volumes, signals (B, C, L), vectors (B, F)
Time = Float[Tensor, " batch"]  # one time, or one log-SNR, for each example
PerExample = Float[Tensor, " batch"]  # one number for each example, in nats where it is a loss
CodeVector = Float[Tensor, "batch dim"]  # a code z
FeatureMap = Float[Tensor, "batch _ ..."]  # inside a network, where width and resolution change from block to block

Terms = dict[str, PerExample]  # the named terms of a loss, nats for each example; training minimises their sum
Nats = TypeVar("Nats", Tensor, float)
Shape = tuple[int, ...]  # of one example, without the batch: (C, H, W), (C, L), (F,)


def expand(per_example: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1) with as many axes as `like`: the one place where a time meets data."""
    return per_example.reshape(-1, *[1] * (like.ndim - 1))


def sum_features(values: Tensor) -> PerExample:
    """(B, ...) -> (B,): the sum over everything but the batch, in float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32)).flatten(1).sum(1)


def bits_per_dim(nats: Nats, shape: Shape) -> Nats:
    """Nats for one example of `shape` -> bits for each of its D numbers: nats / (D ln 2). The one place for it."""
    return nats / (math.prod(shape) * math.log(2))


def mean_and_error(values: Tensor | Sequence[float]) -> tuple[float, float]:
    """Of (N,) values: their mean and its standard error s / sqrt(N), s with N - 1; nan for the error of one value."""
    v = torch.as_tensor(values, dtype=torch.float64)
    error = float(v.std()) / math.sqrt(len(v)) if len(v) > 1 else math.nan
    return float(v.mean()), error


class Mixture(NamedTuple):
    """p(x) = sum_k weights_k prod_i p_k(x_i), with a histogram for each class k and group of places.

    group (*shape): the group of each number, int64. weights (K,). counts (K, groups, grey levels or ranges of them).
    """

    group: Tensor
    weights: Tensor
    counts: Tensor


class Counted(Protocol):
    """What is counted of the grey levels of training examples; None for continuous data."""

    @property
    def histogram(self) -> Tensor | None:
        """Counts by channel, (C, bins)."""

    @property
    def places(self) -> tuple[Tensor, Tensor] | None:
        """Groups of alike places and their histograms (`data.places`)."""

    @property
    def mixture(self) -> Mixture | None:
        """Latent classes of examples (`data.mixture`)."""


@dataclass(frozen=True)
class Uncounted:
    """Nothing is counted: all that would follow from it is loaded with the weights."""

    histogram: Tensor | None = None
    places: tuple[Tensor, Tensor] | None = None
    mixture: Mixture | None = None


@dataclass(frozen=True)
class Facts:
    """What a model must know of its data.

    shape: of one example. bins: number of grey levels, None for continuous data. counted: what is counted of the grey
    levels of the training examples. latent: the number of latent classes of examples. classes: number of classes of the
    labels. moments: mean and variance of each channel, (C,) each. counts: mean and standard deviation (F,) that log
    counts of a table were standardised with; None for other data. covariates: share of the examples that have each
    value of a covariate. All but shape and bins are None, 0, 1 or empty where nothing needs them.
    """

    shape: Shape
    bins: int | None
    counted: Counted = Uncounted()
    classes: int = 0
    moments: tuple[Tensor, Tensor] | None = None
    counts: tuple[Tensor, Tensor] | None = None
    covariates: tuple[float, ...] = ()
    latent: int = 1


def mix(*numbers: int | str) -> int:
    """A seed below 2^63 that depends on all the numbers and on their order. All combined seeds are made here."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "big") >> 1


def piece_seed(seed: int, number: int) -> int:
    """The seed of batch `number` of a whole split. It is older than `mix` and stays, for the numbers of old runs."""
    return seed * 1_000_003 + number


@dataclass(frozen=True)
class Draws:
    """The random generator of one step; its numbers are the same however the batch is cut into shards.

    One seeded generator draws the numbers of the whole batch and each shard takes its slice. So two processes, or two
    micro-batches, get the numbers that one would get, and a continued run gets those of an unbroken one. The price:
    each process draws the numbers of all.

    seed: a number that depends on the step. shard, shards: the place of this shard, and the number of equal shards.
    repeats: so many equal blocks of the batch get the same numbers. each: a generator for each example, see `of_each`.
    """

    generator: torch.Generator
    shard: int = 0
    shards: int = 1
    repeats: int = 1
    each: tuple[torch.Generator, ...] = ()

    @classmethod
    def of_each(cls, seed: int, places: Iterable[int], device: torch.device | str = "cpu") -> Draws:
        """The numbers of an example follow from the seed and its place alone, whatever else is in its batch."""
        each = tuple(torch.Generator(device).manual_seed(mix(seed, place)) for place in places)
        return cls(each[0], each=each)

    @classmethod
    def of(cls, seed: int, device: torch.device | str = "cpu", shard: int = 0, shards: int = 1) -> Draws:
        return cls(torch.Generator(device).manual_seed(seed % 2**63), shard, shards)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers of `shape` (its first axis is the batch of this shard)."""
        return self._slice(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1) of `shape`."""
        return self._slice(torch.rand, shape)

    def stratified(self, batch: int) -> Time:
        """Low-discrepancy times t_i = (u + i / B) mod 1 over the whole batch (VDM, Appendix I.1); (batch,). Examples
        with numbers of their own have independent times."""
        if self.each:
            return self.uniform(batch)
        if self.repeats > 1:
            return replace(self, repeats=1).stratified(batch // self.repeats).repeat(self.repeats)
        size = batch * self.shards
        u = torch.rand((), generator=self.generator, device=self.generator.device)
        steps = torch.arange(size, device=u.device)[self.shard * batch : (self.shard + 1) * batch]
        return (u + steps / size) % 1

    def _slice(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        if self.repeats > 1:
            block = replace(self, repeats=1)._slice(draw, (shape[0] // self.repeats, *shape[1:]))
            return block.repeat(self.repeats, *[1] * (len(shape) - 1))
        if self.each:
            owners = zip(self.each, range(shape[0]), strict=True)
            return torch.stack([draw(shape[1:], generator=own, device=own.device) for own, _ in owners])
        whole = draw((shape[0] * self.shards, *shape[1:]), generator=self.generator, device=self.generator.device)
        return whole[self.shard * shape[0] : (self.shard + 1) * shape[0]]


@dataclass(frozen=True)
class Batch:
    """Some examples: x (B, *shape), their positions in the data (B,), their labels (B,) or None, a random generator,
    and what the decoder alone gets, (B, K) or None."""

    x: Tensor
    index: Tensor
    label: Tensor | None = None
    draws: Draws | None = None
    covariate: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def random(self) -> Draws:
        """Its random generator; ValueError where the batch was made without one."""
        if self.draws is None:
            raise ValueError("this batch has no random generator; set draws=Draws.of(seed)")
        return self.draws

    def to(self, device: torch.device | str) -> Batch:
        label, covariate = (None if v is None else v.to(device) for v in (self.label, self.covariate))
        return replace(self, x=self.x.to(device), index=self.index.to(device), label=label, covariate=covariate)
