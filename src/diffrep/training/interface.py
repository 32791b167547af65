"""What the engine asks for: a model that can be trained, a source of batches, and the numbers of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from diffrep.budget import Budget
from diffrep.shapes import Batch, Terms
from diffrep.training.optimizer import Groups


@dataclass(frozen=True)
class Training:
    """The numbers of a training; `diffrep settings` has a line for each, under train.

    batch: examples of a step, over all processes and micro-batches. accumulate: micro-batches of a step. warmup: share
    of the budget. clip: largest norm of each group's gradient, None for no limit. log_every, checkpoint_every: steps.
    """

    budget: Budget
    seed: int
    batch: int
    accumulate: int
    lr: float
    beta1: float
    beta2: float
    weight_decay: float
    warmup: float
    schedule: str
    clip: float | None
    ema: float
    precision: str
    compile: bool
    channels_last: bool
    device: str
    log_every: int
    checkpoint_every: int
    trackers: Sequence[str] = ()


class Stop(Exception):
    """Raised by whoever listens to the log: training ends after this step, and the run is whole. Says why."""


class Source(Protocol):
    """Micro-batches without end, of each this process's consecutive part; `start`: examples that were seen before."""

    def batches(self, start: int) -> Iterator[Batch]: ...


class Weights(Protocol):
    """What holds weights: of an nn.Module, all that an average of it and a file of it need."""

    def state_dict(self) -> dict[str, Any]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


class Trainable(Weights, Protocol):
    """An nn.Module that says who learns what. A player is one that minimises a loss; most models have one."""

    def __call__(self, batch: Batch, player: str) -> Terms:
        """Named terms (B,), nats for each example; the player minimises the mean of their sum."""

    def players(self) -> Mapping[str, Groups]:
        """Player -> group -> its parameters; the gradient of each group is clipped on its own."""

    def order(self, step: int) -> Sequence[str]:
        """The players that take a turn at a step, in turn."""

    def advance(self) -> None:
        """A step is done, of all players and on all processes."""

    def watch(self) -> Mapping[str, float]:
        """Further numbers of the last step, for the log."""

    # Of nn.Module:
    def buffers(self) -> Iterator[Tensor]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def compile(self) -> None: ...

    def to(self, *where: Any, **how: Any) -> object: ...

    def train(self) -> object: ...
