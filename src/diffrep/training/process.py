"""Which of its processes this one is, and what it computes on."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState

from diffrep.errors import UserError, unknown

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of mallopt, as malloc.h numbers them
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
    """This process among those that torchrun or accelerate started; device: "auto", "cpu" or "cuda"."""
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("the device 'cuda' was asked for and none is there: use device 'cpu' or 'auto'.")
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    AcceleratorState._reset_state(reset_partial_state=alone)  # a second run may ask for another device or precision
    # accelerate joins processes without a GPU only when it is told that there is none
    state = PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())
    if state.num_processes > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)
    if state.device.type == "cpu":
        keep_memory()
    return Place(state.process_index, state.num_processes, state.device)


def main_process() -> bool:
    """Is this the process that speaks: the first, or the only one?"""
    return int(os.environ.get("RANK", "0")) == 0


def keep_memory() -> None:
    """Keeps the memory that a step on a CPU frees for the next one, where glibc gives large blocks back to the system.

    They come again as pages that the kernel must find and clear, a tenth of a training step (`benchmarks/memory.py`).
    The process then holds what its largest step needed. Without glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)  # no block is mapped apart, whatever its size
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _leave() -> None:
    """Ends the threads that connect processes before the interpreter goes; left running, they abort it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
