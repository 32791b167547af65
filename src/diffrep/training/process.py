"""The rank and device of this process, and its global state during training."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState, GradientState

from diffrep.errors import UserError, unknown
from diffrep.training.memory import kept_memory

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Place:
    """Rank 0, 1, ... of this process among `processes`, and its device. Rank 0 writes files."""

    rank: int
    processes: int
    device: torch.device

    @property
    def main(self) -> bool:
        return self.rank == 0


def place(device: str = "auto") -> Place:
    """This process among those that torchrun or accelerate started; device: "auto", "cpu" or "cuda".

    Reads the environment and changes nothing of the process.
    """
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("the device 'cuda' is set and this machine has none: use device 'cpu' or 'auto'.")
    rank, processes = int(os.environ.get("RANK") or 0), int(os.environ.get("WORLD_SIZE") or 1)
    accelerator = None if device == "cpu" else torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return Place(rank, processes, torch.device("cpu"))
    if processes == 1:
        return Place(rank, processes, torch.device(accelerator.type))
    local = int(os.environ.get("LOCAL_RANK") or 0) % torch.accelerator.device_count()
    return Place(rank, processes, torch.device(accelerator.type, local))


def main_process() -> bool:
    """Is this the process that prints: the first, or the only one?"""
    return int(os.environ.get("RANK") or 0) == 0


@contextmanager
def joined(device: str = "auto") -> Iterator[Place]:
    """`place`, with global state for training inside the `with` block; that state is restored afterwards.

    Processes are connected and stay so until they end. Inside, accelerate has a new state, torch's global generators
    may be used, and on a CPU denormal numbers count as zero and freed memory is kept.
    """
    here = place(device)
    gpus = range(torch.cuda.device_count()) if here.device.type == "cuda" else ()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=gpus))
        stack.enter_context(_own_accelerate(here))
        if here.device.type == "cpu":
            stack.enter_context(kept_memory())
            stack.enter_context(_flushed_denormals())
        yield here


@contextmanager
def _own_accelerate(here: Place) -> Iterator[None]:
    """A new state of accelerate inside: a second run may need another device or precision."""
    states = (AcceleratorState, GradientState, *((PartialState,) if here.processes == 1 else ()))
    before = [dict(state._shared_state) for state in states]
    for state in states:
        state._shared_state.clear()
    PartialState(cpu=here.device.type == "cpu")  # accelerate connects processes on CPUs only on request
    if here.processes > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)
    try:
        yield
    finally:
        for state, held in zip(states, before, strict=True):
            state._shared_state.clear()
            state._shared_state.update(held)


@contextmanager
def _flushed_denormals() -> Iterator[None]:
    """Denormal numbers, which a CPU computes slowly, count as zero inside."""
    tiny = torch.tensor(torch.finfo(torch.float32).smallest_normal)
    flushed = bool(tiny / 2 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)


def _leave() -> None:
    """End the threads that connect processes before the interpreter exits; otherwise they abort it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
