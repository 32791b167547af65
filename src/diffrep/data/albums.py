"""Many encoded pictures -> `Values`: decoded into memory at once, or lazily where there are too many."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from diffrep.amounts import amount
from diffrep.data.pictures import (
    MODES,
    Size,
    common_mode,
    common_size,
    decode,
    digest,
    form,
    frames,
    header,
    quietly,
    read,
    stored,
)
from diffrep.data.reading import Reading
from diffrep.data.stores import HEAD, SMALL, Encoded, InMemory
from diffrep.data.values import Extent, Values, bytes_of_two, extent, grid_of, scaled
from diffrep.errors import UserError

RUN = 256  # pictures that a thread decodes at a time
CELLS = 4096  # values in a picture from which on threads pay off (measured: 28x28 is slower with two, 64x64 faster)

Pictures = Sequence[str | bytes]  # paths, or encoded bytes
Form = tuple[int, str, Size]  # the position of a picture, its mode, its size
T = TypeVar("T")


def of_pictures(
    encoded: Pictures, names: Sequence[str], skip_bad: bool, reading: Reading
) -> tuple[Values, np.ndarray, Reading]:
    """Pictures -> their values, the positions that were kept (all, unless skip_bad), the reading with their mode.

    Up to `SMALL` bytes are decoded at once. A larger set is read lazily: its headers are checked now, its pixels when
    they are used (with skip_bad each is decoded once to find the broken ones). The digest is that of the file, not
    of the pixels, which differ between JPEG decoders. UserError: see `read`, `common_mode`, `common_size`.
    """
    for i in range(len(encoded)):
        first = _attempt(lambda i: header(encoded[i], names[i], reading.upright, reading.size), i, skip_bad)
        if first is not None:
            break
    else:
        raise UserError(
            f"none of {amount(len(names), 'picture')} can be read, the first is {names[0]}: check their format."
        )
    mode, size = first
    if reading.applied and reading.mode is not None:
        mode = reading.mode
    elif (many := frames(encoded[i], names[i])) > 1:
        reading = reading.noted(f"{names[i]} holds {many} frames, of which the first is read.")
    channels, kind = form(mode)
    small = len(encoded) * channels * math.prod(size) * kind.itemsize <= SMALL
    return (_decoded if small else _lazy)(encoded, names, skip_bad, mode, size, reading)


def _decoded(
    encoded: Pictures, names: Sequence[str], skip_bad: bool, mode: str, size: Size, reading: Reading
) -> tuple[Values, np.ndarray, Reading]:
    """All pictures decoded in one pass; in a second one where a picture does not fit the mode of the first."""
    channels, kind = form(mode)
    pixels = np.empty((len(encoded), channels, *size), kind)
    digests = np.empty((len(encoded), 32), np.uint8)

    def one(i: int) -> Form:
        name = names[i]
        content = stored(encoded[i], name)
        own_mode, own_size, values = read(content, name, mode, reading.upright, reading.size)
        if values.shape == pixels.shape[1:] and (own_mode == mode or mode in MODES):
            pixels[i] = values
        digests[i] = np.frombuffer(digest(content, None), np.uint8)
        return i, own_mode, own_size

    def run(start: int) -> list[Form]:
        places = range(start, min(start + RUN, len(encoded)))
        return [item for i in places if (item := _attempt(one, i, skip_bad)) is not None]

    threads = min(8, os.cpu_count() or 1) if channels * math.prod(size) >= CELLS else 1
    with quietly(), ThreadPoolExecutor(threads) as pool:
        forms = [item for items in pool.map(run, range(0, len(encoded), RUN)) for item in items]
    if not forms:
        raise UserError(
            f"none of {amount(len(names), 'picture')} can be read, the first is {names[0]}: check their format."
        )
    wide = _common(forms, names, reading)
    if wide != mode:
        return _decoded(encoded, names, skip_bad, wide, size, reading)
    kept = np.array([i for i, _, _ in forms])
    if len(kept) < len(encoded):
        pixels, digests = pixels[kept], digests[kept]
    reading = _scaled(pixels, names, reading.decided(mode=mode))
    pixels, reading = _laid_out(pixels, names[0], reading)
    grid = grid_of(reading)
    return Values(InMemory(grid.store(pixels, given=True)), pixels.shape[1:], grid, digests), kept, reading


def _scaled(pixels: np.ndarray, names: Sequence[str], reading: Reading) -> Reading:
    """The reading with a scale: that of uint8 follows from the type, others are guessed or checked."""
    if pixels.dtype == np.uint8 and reading.levels in (None, 256) and reading.range in (None, (0.0, 255.0)):
        return bytes_of_two(pixels, names[0], reading).decided(levels=256, range=(0.0, 255.0))
    return scaled(extent(pixels, names[0]), names[0], reading)


def _laid_out(pixels: np.ndarray, name: str, reading: Reading) -> tuple[np.ndarray, Reading]:
    """Pages of a TIFF are depth, unless the layout says channels (nchw)."""
    if pixels.ndim < 5:
        return pixels, reading
    pages = pixels.shape[2]
    doubt = f"{name} holds {pages} pages, taken for the depth of a volume: data.layout=nchw if they are channels."
    reading = reading.guess("layout", "ncdhw", doubt)
    if reading.layout in ("nchw", "ndchw"):
        return pixels.reshape(len(pixels), -1, *pixels.shape[3:]), reading
    return pixels, reading


def _lazy(
    encoded: Pictures, names: Sequence[str], skip_bad: bool, mode: str, size: Size, reading: Reading
) -> tuple[Values, np.ndarray, Reading]:
    def one(i: int) -> Form:
        own_mode, own_size = header(encoded[i], names[i], reading.upright, reading.size)
        if skip_bad:
            decode(encoded[i], names[i], own_mode, reading.upright)
        return i, own_mode, own_size

    tried = (_attempt(one, i, skip_bad) for i in range(len(encoded)))
    forms = [item for item in tried if item is not None]
    if not forms:
        raise UserError(
            f"none of {amount(len(names), 'picture')} can be read, the first is {names[0]}: check their format."
        )
    mode = _common(forms, names, reading)
    if mode not in ("L", "RGB", "RGBA", "I;16"):
        raise UserError(
            f"{names[0]} is {'floating-point' if mode == 'F' else mode} and the set is over 1 GiB: save it as 16 bit or"
            " as .npy."
        )
    channels, kind = form(mode)
    bits = Extent(0.0, float(np.iinfo(kind).max), True, kind.name)  # of the type, since no pixel is read now
    reading = scaled(bits, names[0], reading.decided(mode=mode))
    kept = np.array([i for i, _, _ in forms])
    grid = grid_of(reading)
    digests = np.stack([np.frombuffer(digest(encoded[i], HEAD), np.uint8) for i in kept])
    store = Encoded(encoded, names, mode, grid, torch.from_numpy(kept), reading.upright, reading.size)
    return Values(store, (channels, *size), grid, digests), kept, reading


def _common(forms: Iterable[Form], names: Sequence[str], reading: Reading) -> str:
    """The mode of all pictures; UserError where their sizes or depths differ."""
    places, modes, sizes = zip(*forms, strict=True)
    if len(set(sizes)) == len(set(modes)) == 1 and reading.mode in (None, modes[0]):
        return modes[0]
    called = [names[i] for i in places]
    common_size(sizes, called)
    if reading.applied and reading.mode is not None:
        wide = common_mode([reading.mode, *modes], ["the pictures of the training", *called])
        if wide != reading.mode:
            odd = called[next(i for i, mode in enumerate(modes) if mode != reading.mode)]
            raise UserError(f"{odd} has more channels than the pictures of the training: convert it to {reading.mode}.")
        return wide
    return common_mode(modes, called)


def _attempt(read_one: Callable[[int], T], i: int, skip_bad: bool) -> T | None:
    """`read_one(i)`; None where skip_bad is set and the picture cannot be read."""
    try:
        return read_one(i)
    except UserError:
        if not skip_bad:
            raise
        return None
