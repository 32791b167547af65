"""The inputs of the engine: a model that can be trained, a source of batches, and the settings of a training."""

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
    """The settings of a training; `diffrep settings` describes each, under train.

    batch: examples in a step, over all processes and micro-batches. accumulate: micro-batches in a step. optimizer:
    muon or adamw. warmup: share of the budget. clip: largest norm of each group's gradient, None for no limit.
    log_every, checkpoint_every: steps.
    """

    budget: Budget
    seed: int
    batch: int
    accumulate: int
    optimizer: str
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
    shard: bool
    log_every: int
    checkpoint_every: int
    trackers: Sequence[str] = ()


class Stop(Exception):
    """Raised by a callback to end training after this step; the run is complete. Its text says why."""


class Source(Protocol):
    """An endless stream of this process's shards of micro-batches; `start`: number of examples before the first."""

    def batches(self, start: int) -> Iterator[Batch]: ...


class Weights(Protocol):
    """The methods of an nn.Module that its average and its file need."""

    def state_dict(self) -> dict[str, Any]: ...

    def named_parameters(self, *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Parameter]]: ...


class Trainable(Weights, Protocol):
    """An nn.Module with players. A player minimises a loss over its parameters; most models have one."""

    def __call__(self, batch: Batch, player: str) -> Terms:
        """Named terms (B,), nats for each example; the player minimises the mean of their sum."""

    @property
    def networks(self) -> Sequence[nn.Module]:
        """What is compiled, and cut into parts where processes share the weights."""

    def modules(self) -> Iterator[nn.Module]: ...

    def players(self) -> Mapping[str, Groups]:
        """Player -> group -> its parameters; gradients are clipped for each group separately."""

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
