"""Weights of a term that change while training: warm-up, free bits, a target held by a multiplier."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from diffrep.shapes import PerExample


class Weight(nn.Module, ABC):
    """A term (B,) in nats -> what the loss adds in its place (B,). State lives in buffers, so that it is resumed."""

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
    """weight * term, the weight growing linearly from 0 over the first `steps` training steps."""

    def __init__(self, weight: float, steps: int):
        super().__init__()
        self.weight, self.steps = weight, steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, term: PerExample) -> PerExample:
        if self.training:
            self.step += 1
        return self.weight * (self.step / self.steps).clamp(max=1) * term


class FreeBits(Weight):
    """max(term, nats) on the batch mean: the first `nats` cost nothing (Kingma et al. 2016, Eq. 15)."""

    def __init__(self, nats: float, weight: float = 1.0):
        super().__init__()
        self.nats, self.weight = nats, weight

    def forward(self, term: PerExample) -> PerExample:
        return self.weight * term * (term.detach().mean() > self.nats)


class TargetRate(Weight):
    """Holds the mean of a term at `nats`: a proportional-integral controller sets the weight (ControlVAE, Shao 2020).

    The weight is exp(integral) + gain * excess, where excess = mean / nats - 1; the integral grows with the excess, so
    the weight falls towards zero while the code is dying and rises while it takes too much. A negative weight (the
    code is far below its target) pays the encoder for using the code.
    """

    def __init__(self, nats: float, gain: float = 1.0, speed: float = 0.01):
        super().__init__()
        if nats <= 0:
            raise ValueError(f"a target rate must be positive, got {nats} nats")
        self.nats, self.gain, self.speed = nats, gain, speed
        self.register_buffer("integral", torch.zeros(()))

    def forward(self, term: PerExample) -> PerExample:
        excess = _mean_over_processes(term.detach()) / self.nats - 1
        if self.training:
            self.integral += self.speed * excess.clamp(-1, 1)
        return (self.integral.exp() + self.gain * excess.clamp(-1, 3)) * term


def _mean_over_processes(term: PerExample) -> Tensor:
    mean = term.mean()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(mean)
        mean = mean / torch.distributed.get_world_size()
    return mean
