"""The values of a data set, brought to one layout and one scale."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch

from diffrep.data.stores import HEAD, SMALL, Grid, InMemory, Mapped, Store
from diffrep.errors import UserError
from diffrep.shapes import Shape

CHANNELS = {1, 3, 4}  # grey, RGB, RGBA: sizes of a last axis that is taken for the channels of a picture
LEVELS = {"bool": 2, "uint8": 256, "uint16": 65536}


@dataclass(frozen=True)
class Values:
    """N examples in a store, their shape and scale, and a SHA-256 of each. table: features still to be standardised."""

    store: Store
    shape: Shape
    grid: Grid
    digests: np.ndarray  # (N, 32) uint8
    table: bool = False
    prepared: str = ""  # what was done to the numbers, in words


def of_array(values: np.ndarray, name: str, bins: int | None = None) -> Values:
    """An array (N, ...) -> Values.

    (N, F): a table, unless it holds uint8 or bool, which are levels. (N, H, W): one channel; where the second axis has
    at most 4 entries and the last eight times as many or more it is a signal (N, C, L). (N, H, W, C) with C in
    {1, 3, 4} is moved to channels first. uint8, uint16 and bool are 256, 65536 and 2 levels; whole numbers from 0 to
    255 (65535) are 8 (16) bit levels; floats in [0, 1] are stretched to [-1, 1], floats in [-1, 1] are kept. A table of
    counts (whole numbers, at least a quarter of them 0 and the largest 10 or more) is brought to 10,000 counts a row
    and log(1 + count).
    bins: overrides the number of levels. UserError: another shape, range or type, NaN or infinite values.
    """
    if values.ndim < 2 or values.ndim > 5 or 0 in values.shape[1:] or values.dtype.kind not in "biuf":
        raise UserError(
            f"{name} has shape {values.shape} of {values.dtype}, expected numbers as (N, features), (N, H, W), "
            "(N, C, H, W), (N, H, W, C) or (N, C, D, H, W): reshape or convert it."
        )
    if len(values) == 0:
        raise UserError(f"{name} holds no examples, expected at least 3: check how it was written.")
    values = _channels_first(values)
    kind = values.dtype.name
    if values.ndim == 2 and (kind not in ("bool", "uint8") and bins is None):
        return _of_table(values, name)
    grid = Grid(bins or LEVELS[kind]) if bins or kind in LEVELS else float_grid(*value_range(values, name), name)
    lazy = isinstance(values, np.memmap) and values.nbytes > SMALL
    return Values(
        store=Mapped(values, grid) if lazy else InMemory(grid.store(values)),
        shape=values.shape[1:],
        grid=grid,
        digests=_row_digests(values, HEAD if lazy else None),
    )


def _of_table(values: np.ndarray, name: str) -> Values:
    low, high, whole = value_range(values, name)
    digests, prepared = _row_digests(values, None), ""
    table = values.astype(np.float64)
    if whole and low >= 0 and high >= 10 and np.mean(values == 0) >= 0.25:
        table = np.log1p(1e4 * table / np.maximum(table.sum(1, keepdims=True), 1))
        prepared = "counts brought to 10,000 a row, log(1 + count), "
    return Values(
        InMemory(torch.from_numpy(table)), values.shape[1:], Grid(None), digests, table=True,
        prepared=prepared + "standardised for each feature",
    )  # fmt: skip


def _channels_first(values: np.ndarray) -> np.ndarray:
    if values.ndim == 3 and not (values.shape[1] <= 4 and values.shape[2] >= 8 * values.shape[1]):
        return values[:, None]
    if values.ndim == 4 and values.shape[-1] in CHANNELS and values.shape[1] not in CHANNELS:
        return np.moveaxis(values, -1, 1)
    return values


def value_range(values: np.ndarray, name: str) -> tuple[float, float, bool]:
    """(smallest, largest, are all whole numbers), in one pass by chunks; UserError where some are not finite."""
    low, high, whole, bad, first = math.inf, -math.inf, True, 0, -1
    rows = max(1, 2**22 // math.prod(values.shape[1:]))
    for start in range(0, len(values), rows):
        chunk = np.asarray(values[start : start + rows])
        finite = np.isfinite(chunk)
        if not finite.all():
            bad += int((~finite).sum())
            if first < 0:
                first = start + int(np.argmin(finite.reshape(len(chunk), -1).all(1)))
            continue
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
        whole = whole and (chunk.dtype.kind in "biu" or bool((chunk == np.rint(chunk)).all()))
    if bad:
        raise UserError(f"{name} holds {bad:,} NaN or infinite values, the first in row {first}: remove or fill them.")
    return low, high, whole


def float_grid(low: float, high: float, whole: bool, name: str) -> Grid:
    if low >= 0 and high <= 1:
        return Grid(None, slope=2.0, shift=-1.0)
    if low >= -1 and high <= 1:
        return Grid(None)
    if whole and low >= 0 and high <= 65535:
        return Grid(256 if high <= 255 else 65536)
    fix = "divide it by 255" if low >= 0 and high <= 255 else "scale it into [-1, 1]"
    raise UserError(
        f"{name} holds values from {low:.6g} to {high:.6g}, expected [0, 1], [-1, 1] or whole levels 0 to 255: {fix}."
    )


def _row_digests(values: np.ndarray, limit: int | None) -> np.ndarray:
    kind = values.dtype.newbyteorder("<").str.encode()
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    digests = [hashlib.sha256(kind + row.tobytes()[:limit]).digest() for row in little]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(values), 32)
