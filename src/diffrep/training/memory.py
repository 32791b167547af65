"""Keeps memory that a step on a CPU frees for the next step; by default glibc returns it to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # options of mallopt, as malloc.h numbers them
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}  # never use mmap, never return memory
_GLIBC = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 * 1024}  # the defaults of glibc

_kept = False


@contextmanager
def kept_memory() -> Iterator[None]:
    """`keep_memory` inside; afterwards glibc returns memory as it does by default."""
    was_kept = _kept
    keep_memory()
    try:
        yield
    finally:
        if not was_kept:
            _set(_GLIBC, kept=False)


def keep_memory() -> None:
    """From now on the process keeps the memory that it frees. Without glibc nothing changes.

    For memory that was returned, the kernel must find and clear new pages, which takes a tenth of a training step
    (`benchmarks/memory.py`). The process then holds the memory of its largest step.
    """
    _set(_KEEP, kept=True)


def _set(options: dict[int, int], kept: bool) -> None:
    global _kept
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
        _kept = kept
