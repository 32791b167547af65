"""Many encoded pictures -> `Values`: decoded into memory at once, or lazily where there are too many."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from diffrep.data.pictures import MODES, common_mode, common_size, decode, digest, header, read
from diffrep.data.stores import HEAD, SMALL, Encoded, Grid, InMemory
from diffrep.data.values import LEVELS, Values, float_grid, value_range
from diffrep.errors import UserError

RUN = 256  # pictures that a thread decodes at a time
CELLS = 4096  # values in a picture from which on threads pay off (measured: 28x28 is slower with two, 64x64 faster)

Pictures = Sequence[str | bytes]  # paths, or encoded bytes
Found = tuple[int, str, tuple[int, int]]  # the position of a picture, its mode, (height, width)
T = TypeVar("T")


def of_pictures(encoded: Pictures, names: Sequence[str], skip_bad: bool) -> tuple[Values, np.ndarray]:
    """Pictures -> their values and the positions that were kept (all of them, unless skip_bad).

    Up to `SMALL` bytes are decoded at once. A larger set is read lazily: its headers are checked now, its pixels when
    they are needed (with skip_bad each is decoded once to find the broken ones). The digest is that of the file, not
    of the pixels, which differ between JPEG decoders. UserError: see `read`, `common_mode`, `common_size`.
    """
    for i in range(len(encoded)):
        first = _attempt(lambda i: header(encoded[i], names[i]), i, skip_bad)
        if first is not None:
            break
    else:
        raise UserError(f"none of {len(encoded):,} pictures can be read, the first is {names[0]}: check their format.")
    mode, size = first
    channels, dtype = MODES[mode]
    small = len(encoded) * channels * math.prod(size) * np.dtype(dtype).itemsize <= SMALL
    return (_decoded if small else _lazy)(encoded, names, skip_bad, mode, size)


def _decoded(
    encoded: Pictures, names: Sequence[str], skip_bad: bool, mode: str, size: tuple[int, int]
) -> tuple[Values, np.ndarray]:
    """Everything in memory, in one pass; in two where a picture does not fit the mode of the first."""
    channels, dtype = MODES[mode]
    pixels = np.empty((len(encoded), channels, *size), dtype)
    digests = np.empty((len(encoded), 32), np.uint8)

    def one(i: int) -> Found:
        own_mode, own_size, values = read(encoded[i], names[i], mode)
        if own_size == size:
            pixels[i] = values
        digests[i] = np.frombuffer(digest(encoded[i], None), np.uint8)
        return i, own_mode, own_size

    def run(start: int) -> list[Found]:
        places = range(start, min(start + RUN, len(encoded)))
        return [found for i in places if (found := _attempt(one, i, skip_bad)) is not None]

    threads = min(8, os.cpu_count() or 1) if channels * math.prod(size) >= CELLS else 1
    with ThreadPoolExecutor(threads) as pool:
        found = [item for items in pool.map(run, range(0, len(encoded), RUN)) for item in items]
    if not found:
        raise UserError(f"none of {len(encoded):,} pictures can be read, the first is {names[0]}: check their format.")
    wide = _common(found, names)
    if wide != mode:
        return _decoded(encoded, names, skip_bad, wide, size)
    kept = np.array([i for i, _, _ in found])
    if len(kept) < len(encoded):
        pixels, digests = pixels[kept], digests[kept]
    kind = pixels.dtype.name
    grid = Grid(LEVELS[kind]) if kind in LEVELS else float_grid(*value_range(pixels, names[0]), names[0])
    return Values(InMemory(grid.store(pixels)), pixels.shape[1:], grid, digests), kept


def _lazy(
    encoded: Pictures, names: Sequence[str], skip_bad: bool, mode: str, size: tuple[int, int]
) -> tuple[Values, np.ndarray]:
    def one(i: int) -> Found:
        own_mode, own_size = header(encoded[i], names[i])
        if skip_bad:
            decode(encoded[i], names[i], own_mode)
        return i, own_mode, own_size

    tried = (_attempt(one, i, skip_bad) for i in range(len(encoded)))
    found = [item for item in tried if item is not None]
    if not found:
        raise UserError(f"none of {len(encoded):,} pictures can be read, the first is {names[0]}: check their format.")
    mode = _common(found, names)
    if mode == "F":
        raise UserError(f"{names[0]} is floating-point and the set is over 1 GiB: save it as 16 bit or as .npy.")
    channels, dtype = MODES[mode]
    grid = Grid(LEVELS[np.dtype(dtype).name])
    kept = np.array([i for i, _, _ in found])
    digests = np.stack([np.frombuffer(digest(encoded[i], HEAD), np.uint8) for i in kept])
    return Values(Encoded(encoded, names, mode, grid, torch.from_numpy(kept)), (channels, *size), grid, digests), kept


def _common(found: Iterable[Found], names: Sequence[str]) -> str:
    """The mode of all pictures; UserError where their sizes or depths differ."""
    places, modes, sizes = zip(*found, strict=True)
    called = [names[i] for i in places]
    common_size(sizes, called)
    return common_mode(modes, called)


def _attempt(read_one: Callable[[int], T], i: int, skip_bad: bool) -> T | None:
    """What `read_one` gives for picture i; None for what cannot be read, when such pictures are to be skipped."""
    try:
        return read_one(i)
    except UserError:
        if not skip_bad:
            raise
        return None
