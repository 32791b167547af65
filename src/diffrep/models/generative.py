"""p(x | z): makes examples from codes, from noise or from both, and bounds -log p(x)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from diffrep.codes.posteriors import Code
from diffrep.denoising.samplers import USUAL, Sampling
from diffrep.shapes import Batch, CodeVector, Data, Draws, Terms, Time

CodePath = Callable[[Time], CodeVector]  # the code at each noise level: t (n,) -> z (n, d)
Given = CodeVector | CodePath | None  # what is decoded: codes z (n, d), a code for each t, or nothing

AT_ONCE = 250  # examples that are made at a time


class Generative(ABC):
    """The half of a model that makes examples. A model that only encodes has none."""

    @property
    @abstractmethod
    def no_bound(self) -> str | None:
        """Why there is no bound on -log p(x), in one sentence; None where there is one."""

    @abstractmethod
    def bound(self, batch: Batch, levels: int = 8, code: Code | None = None) -> Terms:
        """The bound on -log p(x) at weight one, (B,) nats for each term; UserError where there is none.

        code: q(z | x) in place of the encoder's. Any q(z | x) gives a bound, and the bound is differentiable in it.
        """

    def ends(self, batch: Batch, code: Code | None = None) -> Terms:
        """The terms of the bound that do not depend on a noise level, (B,) nats each: all where there is no
        diffusion."""
        return self.bound(batch, 1, code)

    def given(self, covariate: Tensor | None) -> Generative:
        """The same for examples with a covariate (B, K), which a decoder without one ignores."""
        return self

    def covariate(self, n: int, draws: Draws) -> Tensor | None:
        """(n, K) covariates as often as the data has them; None without one."""
        return None

    @abstractmethod
    def decode(self, z: Given, n: int, draws: Draws, sampling: Sampling = USUAL, x_1: Data | None = None) -> Data:
        """n examples in [-1, 1] from codes, or without any.

        x_1 (n, *shape), standard normal, fixes the noise that a diffusion model starts from.
        """


def in_batches(n: int, seed: int, device: torch.device, make: Callable[[slice, Draws], Data]) -> Data:
    """n examples, `AT_ONCE` at a time, so that memory beside the result is that of one batch.

    `make` gets the places of a batch, and random numbers that follow from the seed and the place of each example alone.
    """
    if not n:
        return make(slice(0, 0), Draws.of(seed, device))
    batches = (slice(start, min(start + AT_ONCE, n)) for start in range(0, n, AT_ONCE))
    return torch.cat([make(rows, Draws.of_each(seed, range(rows.start, rows.stop), device)) for rows in batches])
