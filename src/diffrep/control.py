"""Weights that change while training: warm-up, cycles, free bits, a target held by a multiplier; what fades out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from diffrep.levels import Density
from diffrep.noise import Noise
from diffrep.shapes import PerExample, Time


class Weight(nn.Module, ABC):
    """A term (B,) in nats -> what the loss adds in its place (B,). State lives in buffers, so that it is resumed.

    It counts forward passes: with accumulation each micro-batch is one.
    """

    target: float | None = None  # nats that it holds the term at

    @abstractmethod
    def forward(self, term: PerExample) -> PerExample: ...


class Constant(Weight):
    """weight * term (beta of a beta-VAE)."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = weight

    def forward(self, term: PerExample) -> PerExample:
        return self.weight * term


class WarmUp(Weight):
    """weight * term, the weight growing linearly from 0 over the first `steps` forward passes of training."""

    step: Tensor

    def __init__(self, weight: float, steps: int):
        super().__init__()
        self.weight, self.steps = weight, steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, term: PerExample) -> PerExample:
        if self.training:
            self.step += 1
        return self.weight * (self.step / self.steps).clamp(max=1) * term


class Cyclic(Weight):
    """weight * term, the weight rising from 0 over the first half of each cycle of `steps` (Fu et al. 2019, Eq. 6)."""

    step: Tensor

    def __init__(self, weight: float, steps: int, rise: float = 0.5):
        super().__init__()
        self.weight, self.steps, self.rise = weight, steps, rise
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, term: PerExample) -> PerExample:
        place = self.step % self.steps / self.steps
        if self.training:
            self.step += 1
        return self.weight * (place / self.rise).clamp(max=1) * term


class Annealed(Weight):
    """factor * term, the factor going linearly from `start` to 1 over the first `steps` forward passes of training.

    On the decoder's loss, a start above one makes a code worth more than it costs until the decoder is good.
    """

    step: Tensor

    def __init__(self, start: float, steps: int):
        super().__init__()
        self.start, self.steps = start, steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, term: PerExample) -> PerExample:
        done = (self.step / self.steps).clamp(max=1)
        if self.training:
            self.step += 1
        return (self.start + (1 - self.start) * done) * term


class Fading(nn.Module):
    """A level of detail that begins as `extra` and ends as `base`: the loss first looks where a code is of most use.

    Over the first `steps` calls in training the share of `extra` falls linearly from 1 to 0. The two are mixed at
    equal mass, that of `base`, so that the size of the loss does not depend on their units.
    """

    cells = 512
    step: Tensor

    def __init__(self, extra: Density, base: Density, steps: int):
        super().__init__()
        self.extra, self.base, self.steps = extra, base, steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, noise: Noise, t: Time) -> Tensor:
        share = (1 - self.step / self.steps).clamp(min=0)
        if self.training:
            self.step += 1
        if not share:
            return self.base(noise, t)
        grid = (torch.arange(self.cells, device=t.device) + 0.5) / self.cells
        masses = [density(noise, grid).detach().mean() for density in (self.base, self.extra)]
        return (1 - share) * self.base(noise, t) + share * (masses[0] / masses[1]) * self.extra(noise, t)


class FreeBits(Weight):
    """The gradient of weight * max(mean, nats): the first `nats` cost nothing (Kingma et al. 2016, Eq. 15).

    Below that the term counts 0, above it whole; the mean is over the micro-batch at hand.
    """

    def __init__(self, nats: float, weight: float = 1.0):
        super().__init__()
        self.nats, self.weight = nats, weight

    def forward(self, term: PerExample) -> PerExample:
        return self.weight * term * (term.detach().mean() > self.nats)


class TargetRate(Weight):
    """Holds the mean of a term at `nats`: the weight follows a proportional-integral controller (Shao et al. 2020).

    weight = exp(integral + gain * excess), excess = mean / nats - 1 within [-1, 1]; each training step adds
    speed * excess to the integral. It starts low, so that the code is cheap until the decoder has learned to use it:
    a code that is priced before it is of use dies, and seldom comes back.
    """

    integral: Tensor

    def __init__(self, nats: float, start: float = 0.01, gain: float = 1.0, speed: float = 0.02):
        super().__init__()
        if nats <= 0:
            raise ValueError(f"a target rate must be positive, got {nats} nats")
        self.target = self.nats = nats
        self.gain, self.speed = gain, speed
        self.register_buffer("integral", torch.tensor(math.log(start)))

    def forward(self, term: PerExample) -> PerExample:
        excess = (_mean_over_processes(term.detach()) / self.nats - 1).clamp(-1, 1)
        if self.training:
            self.integral += self.speed * excess
        return (self.integral + self.gain * excess).exp() * term


def _mean_over_processes(term: PerExample) -> Tensor:
    mean = term.mean()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(mean)
        mean = mean / torch.distributed.get_world_size()
    return mean
