"""Weights of loss terms that change in training: warm-up, cycles, free bits, a target rate; a changing density."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from diffrep.denoising.detail import Density
from diffrep.denoising.noise import Noise
from diffrep.shapes import PerExample, Terms, Time


class Changing(Protocol):
    """An object that changes from step to step."""

    def advance(self) -> None:
        """A training step is done, on all processes."""


class Weight(nn.Module, ABC):
    """A term (B,) in nats -> the weighted term (B,).

    Its state is in buffers, so that checkpoints hold it, and changes in `advance` alone: once a training step, however
    many passes the step takes.
    """

    target: float | None = None  # nats at which it holds the term

    @property
    def below(self) -> bool:
        """Whether the term was below its target at the last step; False without a target."""
        return False

    @abstractmethod
    def forward(self, term: PerExample) -> PerExample: ...

    @abstractmethod
    def advance(self) -> None:
        """A training step is done, on all processes."""


def weighted(weights: nn.ModuleDict, terms: Terms) -> Terms:
    """The terms (B,) of a loss, each by the weight of its name; one where there is none."""
    return {name: weights[name](term) if name in weights else term for name, term in terms.items()}


def rate_target(weights: Mapping[str, Weight]) -> float | None:
    """Nats that the weights hold the rate at; None where they hold it at none."""
    return weights["rate"].target if "rate" in weights else None


class Constant(Weight):
    """weight * term (beta of a beta-VAE)."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    def forward(self, term: PerExample) -> PerExample:
        return self.weight * term

    def advance(self) -> None:
        """Does nothing: the weight is constant."""


class WarmUp(Weight):
    """weight * term, the weight growing linearly from 0 over the first `steps` steps of training."""

    step: Tensor

    def __init__(self, weight: float, steps: int):
        super().__init__()
        self.weight, self.steps = weight, steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, term: PerExample) -> PerExample:
        return self.weight * ((self.step + 1) / self.steps).clamp(max=1) * term

    def advance(self) -> None:
        self.step += 1


class Cyclic(Weight):
    """weight * term, the weight rising from 0 over the first half of each cycle of `steps` (Fu et al. 2019, Eq. 6)."""

    step: Tensor

    def __init__(self, weight: float, steps: int, rise: float = 0.5):
        super().__init__()
        self.weight, self.steps, self.rise = weight, steps, rise
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, term: PerExample) -> PerExample:
        place = self.step % self.steps / self.steps
        return self.weight * (place / self.rise).clamp(max=1) * term

    def advance(self) -> None:
        self.step += 1


class Annealed(Weight):
    """factor * term, the factor going linearly from `start` to 1 over the first `steps` steps of training.

    On the decoder's loss, a start above 1 gives the code more weight than its rate while the decoder is poor.
    """

    step: Tensor

    def __init__(self, start: float, steps: int):
        super().__init__()
        self.start, self.steps = start, steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, term: PerExample) -> PerExample:
        done = (self.step / self.steps).clamp(max=1)
        return (self.start + (1 - self.start) * done) * term

    def advance(self) -> None:
        self.step += 1


class Fading(nn.Module):
    """A level of detail that goes from `extra` to `base`: the loss begins at the noise levels where a code helps most.

    Over the first `steps` steps of training the share of `extra` falls linearly from 1 to 0. `extra` is scaled to the
    integral of `base`, so that the size of the loss does not depend on their units.
    """

    cells = 512
    step: Tensor

    def __init__(self, extra: Density, base: Density, steps: int):
        super().__init__()
        self.extra, self.base, self.steps = extra, base, steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, noise: Noise, t: Time) -> Tensor:
        share = (1 - self.step / self.steps).clamp(min=0)
        if not share:
            return self.base(noise, t)
        grid = (torch.arange(self.cells, device=t.device) + 0.5) / self.cells
        masses = [density(noise, grid).detach().mean() for density in (self.base, self.extra)]
        return (1 - share) * self.base(noise, t) + share * (masses[0] / masses[1]) * self.extra(noise, t)

    def advance(self) -> None:
        """A training step is done."""
        self.step += 1


class FreeBits(Weight):
    """The gradient of weight * max(mean, nats): the first `nats` have no penalty (Kingma et al. 2016, Eq. 15).

    Below that the term has weight 0, above it full weight; the mean is over the micro-batch.
    """

    def __init__(self, nats: float, weight: float = 1.0):
        super().__init__()
        self.nats, self.weight = nats, weight

    def forward(self, term: PerExample) -> PerExample:
        return self.weight * term * (term.detach().mean() > self.nats)

    def advance(self) -> None:
        """Does nothing: the weight is constant."""


class TargetRate(Weight):
    """Holds the mean of a term at `nats`: the weight follows a proportional-integral controller (Shao et al. 2020).

    weight = exp(integral + gain * excess), excess = mean / nats - 1 within [-1, 1], where the mean is that of the last
    step, over all of its examples; each step adds speed * excess to the integral. The weight is low at first,
    until the decoder has learned to use the code: a code whose rate has full weight before it is used collapses, and
    seldom recovers.
    """

    integral: Tensor
    excess: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, nats: float, start: float = 0.01, gain: float = 1.0, speed: float = 0.02):
        super().__init__()
        if nats <= 0:
            raise ValueError(f"a target rate must be positive, got {nats} nats")
        self.target = self.nats = nats
        self.gain, self.speed = gain, speed
        self.register_buffer("integral", torch.tensor(math.log(start)))
        self.register_buffer("excess", torch.zeros(()))
        self.register_buffer("total", torch.zeros(()), persistent=False)  # of this step so far; the engine averages it
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, term: PerExample) -> PerExample:
        if self.training:
            self.total += term.detach().sum()
            self.count += len(term)
        return (self.integral + self.gain * self.excess).exp() * term

    @property
    def below(self) -> bool:
        return bool(self.excess < 0)

    def advance(self) -> None:
        """Update the weight from the mean of the step; the engine has averaged total and count over processes."""
        excess = (self.total / self.count / self.nats - 1).clamp(-1, 1)
        self.excess.copy_(torch.where(self.count > 0, excess, self.excess))
        self.integral += self.speed * self.excess
        self.total.zero_()
        self.count.zero_()


@dataclass(frozen=True)
class Lag:
    """Extra updates of the encoder alone while it lags behind its decoder (He et al. 2019, Alg. 1).

    Each of the first `until` steps has `extra` updates; with until = 0, each step after one whose rate was below its
    target. rate: the weight of the rate.
    """

    extra: int
    until: int
    rate: Weight | None

    def turns(self, step: int) -> int:
        if self.until or self.rate is None:
            return self.extra * (step < self.until)
        return self.extra * self.rate.below
