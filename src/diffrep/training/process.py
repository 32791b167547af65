"""Which of its processes this one is, what it computes on, and what training changes of it."""

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
    """Where this process stands: part 0, 1, ... of `parts` processes. Part 0 writes."""

    part: int
    parts: int
    device: torch.device

    @property
    def main(self) -> bool:
        return self.part == 0


def place(device: str = "auto") -> Place:
    """This process among those that torchrun or accelerate started; device: "auto", "cpu" or "cuda".

    Reads the environment and changes nothing of the process.
    """
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("the device 'cuda' was asked for and none is there: use device 'cpu' or 'auto'.")
    part, parts = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = None if device == "cpu" else torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return Place(part, parts, torch.device("cpu"))
    if parts == 1:
        return Place(part, parts, torch.device(accelerator.type))
    local = int(os.environ.get("LOCAL_RANK", "0")) % torch.accelerator.device_count()
    return Place(part, parts, torch.device(accelerator.type, local))


def main_process() -> bool:
    """Is this the process that speaks: the first, or the only one?"""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def joined(device: str = "auto") -> Iterator[Place]:
    """`place`, with the process made ready to train inside, and as it was before afterwards.

    Processes are connected and stay so until they end. Inside, accelerate's state is that of the training alone, random
    numbers of torch's global generators may be drawn, and on a CPU denormal numbers count as zero and freed memory is
    kept.
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
    """accelerate begins without a state inside: a second run may ask for another device or precision."""
    states = (AcceleratorState, GradientState, *((PartialState,) if here.parts == 1 else ()))
    before = [dict(state._shared_state) for state in states]
    for state in states:
        state._shared_state.clear()
    PartialState(cpu=here.device.type == "cpu")  # accelerate joins processes on CPUs only when it is told so
    if here.parts > 1:
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
    """Ends the threads that connect processes before the interpreter goes; left running, they abort it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
