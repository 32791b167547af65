"""The values of a data set, brought to one layout and one scale."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffrep.amounts import amount
from diffrep.data.layout import channels_first
from diffrep.data.reading import Reading
from diffrep.data.stores import HEAD, SMALL, Grid, InMemory, Mapped, Store, blocks
from diffrep.errors import UserError
from diffrep.shapes import Shape

GREY_LEVELS = {"bool": 2, "uint8": 256, "uint16": 65536}
STANDARDISED = "standardised for each feature"
PER_ROW = 1e4  # counts that each row of a table of counts is brought to
COUNTED = "counts brought to 10,000 a row, log(1 + count), "
ROUNDING = 1e-5  # share of a range: values this far outside of it are taken for rounding errors


@dataclass(frozen=True)
class Values:
    """N examples in a store, their shape and scale, and a SHA-256 of each. table: features still to be standardised."""

    store: Store
    shape: Shape
    grid: Grid
    digests: np.ndarray  # (N, 32) uint8
    table: bool = False
    prepared: str = ""  # what was done to the numbers, in words


@dataclass(frozen=True)
class Extent:
    """The smallest and the largest value, and whether all are whole numbers; kind: of NumPy's types."""

    low: float
    high: float
    whole: bool
    kind: str


def of_array(values: Any, name: str, reading: Reading, bins: int | None = None) -> tuple[Values, Reading]:
    """An array (N, ...) -> Values, and the reading with layout and scale.

    (N, F): a table, unless it holds uint8 or bool, which are grey levels. Other arrays: see `layout`; uint8, uint16 and
    bool have 256, 65536 and 2 grey levels; whole numbers from 0 to 255 (65535) are grey levels of 8 (16) bits; floats
    in [0, 1] are stretched to [-1, 1], floats in [-1, 1] are kept. bins: the number of grey levels, where it is known.
    An array in a file (`np.memmap`, `OnDisk`) is read block by block, and stays there if it takes more than 1 GiB.
    UserError: another shape, range or type, NaN or infinite values.
    """
    if values.ndim < 2 or values.ndim > 5 or 0 in values.shape[1:] or values.dtype.kind not in "biuf":
        raise UserError(
            f"{name} has shape {values.shape} of {values.dtype}, expected numbers as (N, features), (N, H, W), "
            "(N, C, H, W), (N, H, W, C) or (N, C, D, H, W): reshape or convert it."
        )
    if len(values) == 0:
        raise UserError(f"{name} holds no examples, expected at least 3: check how it was written.")
    if reading.size is not None:
        raise UserError(f"data.size resizes pictures and {name} is an array: leave it out.")
    kind = values.dtype.name
    if values.ndim == 2 and is_table(kind, reading) and bins is None:
        return of_table(np.asarray(values), name, reading.guess("layout", "nf") if reading.layout is None else reading)
    values, reading = channels_first(values, name, reading)
    if bins:
        reading = reading.decided(levels=bins, range=(0.0, bins - 1.0))
    wide = (
        kind in GREY_LEVELS
        and reading.levels in (None, GREY_LEVELS[kind])
        and reading.range in (None, (0.0, GREY_LEVELS[kind] - 1.0))
    )
    if wide and kind != "uint16":
        reading = bytes_of_two(values, name, reading) if kind == "uint8" else reading
        reading = reading.decided(levels=GREY_LEVELS[kind], range=(0.0, GREY_LEVELS[kind] - 1.0))
    else:
        reading = scaled(extent(values, name), name, reading)
    grid = grid_of(reading)
    in_file = isinstance(values, np.memmap) or not isinstance(values, np.ndarray)
    lazy = in_file and values.nbytes > SMALL
    made = Values(
        store=Mapped(values, grid) if lazy else InMemory(grid.store(values)),
        shape=values.shape[1:],
        grid=grid,
        digests=_row_digests(values, HEAD if lazy else None),
    )
    return made, reading


def is_table(kind: str, reading: Reading) -> bool:
    """Are rows of numbers features to be standardised? uint8 and bool are grey levels, unless a run trained on a
    table."""
    if reading.applied:
        return reading.scaling is not None
    return (kind not in ("bool", "uint8") or reading.counts is True) and not reading.levels


def of_table(
    values: np.ndarray, name: str, reading: Reading, columns: Sequence[str] | None = None
) -> tuple[Values, Reading]:
    """Rows of numbers (N, F) -> Values still to be standardised. columns: their names; named columns may lack numbers
    (NaN)."""
    if columns is None:
        ends = extent(values, name)
        low, whole = ends.low, ends.whole
    else:
        infinite = np.isinf(values).any(0)
        if infinite.any():
            raise UserError(f"column {columns[int(infinite.argmax())]!r} of {name} holds infinite numbers: mend it.")
        finite = values[np.isfinite(values)]
        low = float(finite.min()) if finite.size else 0.0
        whole = not np.isnan(values).any() and bool((values == np.rint(values)).all())
    if reading.counts is None:
        counts = not reading.applied and whole and low >= 0 and are_counts(values)
        share = float(np.mean(values == 0)) if counts else 0.0
        doubt = (
            f"{name} was taken for counts (whole numbers in {values.shape[1]} columns, {share:.0%} of them 0), so each"
            " row is brought to 10,000 and its logarithm taken: data.counts=no if they are measurements."
        )
        reading = reading.guess("counts", counts, doubt if counts else "")
    digests, prepared = _row_digests(values, None), ""
    table = values.astype(np.float64)
    if reading.counts:
        if low < 0 or np.isnan(table).any():
            raise UserError(f"{name} holds negative or missing numbers, which are no counts: set data.counts=no.")
        table, prepared = counted(table), COUNTED
    made = Values(
        InMemory(torch.from_numpy(table)), values.shape[1:], Grid(None), digests, table=True,
        prepared=prepared + STANDARDISED,
    )  # fmt: skip
    return made, reading


def counted(table: np.ndarray) -> np.ndarray:
    """Counts (N, F) -> log(1 + count) of each row brought to 10,000."""
    return np.log1p(PER_ROW * table / np.maximum(table.sum(1, keepdims=True), 1))


def are_counts(table: np.ndarray) -> bool:
    """Do whole numbers (N, F) look like counts of cells or words?

    They must have thirty columns or more, a quarter of all numbers 0, and a number of 10 or more. At most a twentieth
    of the columns may reach the largest number, or the columns share a scale (grey levels, grades). Most of the columns
    that reach 10 must hold a 0 too: flags do not reach 10 and measurements do not hold 0.
    """
    if table.shape[1] < 30 or np.mean(table == 0) < 0.25:
        return False
    highest = table.max(0)
    large = highest >= 10
    if not large.any() or (highest == highest.max()).sum() > max(2, table.shape[1] / 20):
        return False
    return bool((table[:, large] == 0).any(0).mean() > 0.5)


def extent(values: Any, name: str) -> Extent:
    """See `Extent`; in one pass by chunks. UserError where some values are not finite."""
    low, high, whole, bad, first = math.inf, -math.inf, True, 0, -1
    for rows in blocks(values.shape):
        chunk = np.asarray(values[rows])
        finite = np.isfinite(chunk)
        if not finite.all():
            bad += int((~finite).sum())
            if first < 0:
                first = rows.start + int(np.argmin(finite.reshape(len(chunk), -1).all(1)))
            continue
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
        whole = whole and (chunk.dtype.kind in "biu" or bool((chunk == np.rint(chunk)).all()))
    if bad:
        raise UserError(f"{name} holds {bad:,} NaN or infinite values, the first in row {first}: remove or fill them.")
    return Extent(low, high, whole, values.dtype.name)


def bytes_of_two(values: Any, name: str, reading: Reading) -> Reading:
    """The reading; where bytes hold 0 and 1 alone, 256 grey levels are a guess."""
    if reading.levels is not None or any(np.max(values[rows]) > 1 for rows in blocks(values.shape)):
        return reading
    doubt = f"{name} holds 0 and 1 alone in 8 bits, read as 256 grey levels: data.levels=2 if these are all."
    return reading.guess("levels", 256, doubt)


def scaled(values: Extent, name: str, reading: Reading) -> Reading:
    """The reading with grey levels and range; UserError for values outside of a range that it has already."""
    ends = reading.range
    if ends is None:
        if reading.levels is None:
            return _guessed(values, name, reading)
        ends = 0.0, reading.levels - 1.0
        reading = reading.decided(range=ends)
    low, high = ends
    slack = ROUNDING * (high - low)
    if values.low < low - slack or values.high > high + slack:
        raise UserError(
            f"{name} holds values from {values.low:.6g} to {values.high:.6g}, expected {low:g} to {high:g}: bring it to"
            " that range" + (", which the run was trained on." if reading.applied else ", or set data.range.")
        )
    unit = reading.levels and high - low == reading.levels - 1  # each whole number is a grey level
    if unit and not values.whole:
        raise UserError(
            f"{name} holds values that are no whole numbers, expected {reading.levels:,} grey levels from {low:g} to"
            f" {high:g}: round it, or set data.range."
        )
    return reading


def _guessed(values: Extent, name: str, reading: Reading) -> Reading:
    low, high = values.low, values.high
    if values.kind == "uint16":
        doubt = ""
        if high < 32768:
            bits = 1 if high <= 1 else max(8, math.ceil(math.log2(high + 1)))
            doubt = (
                f"{name} holds grey levels of 16 bits and the largest is {high:,.0f}: data.levels={2**bits} if they"
                f" have {amount(bits, 'bit')}."
            )
        return reading.guess("levels", 65536, doubt).decided(range=(0.0, 65535.0))
    if values.kind in GREY_LEVELS:
        return reading.decided(levels=GREY_LEVELS[values.kind], range=(0.0, GREY_LEVELS[values.kind] - 1.0))
    whole_kind = not values.kind.startswith("float")
    if whole_kind and low >= 0 and high <= 1:
        return reading.guess("levels", 2).decided(range=(0.0, 1.0))
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        doubt = ""
        if values.whole:
            doubt = f"{name} holds 0 and 1 alone as floats, read as continuous: data.levels=2 if they are grey levels."
        return reading.guess("range", (0.0, 1.0), doubt).decided(levels=0)
    if low >= -1 - ROUNDING and high <= 1 + ROUNDING:
        return reading.guess("range", (-1.0, 1.0)).decided(levels=0)
    if values.whole and low >= 0 and high <= 65535:
        bins = 256 if high <= 255 else 65536
        doubt = ""
        if bins == 65536 and high < 32768:
            bits = max(9, math.ceil(math.log2(high + 1)))
            doubt = (
                f"{name} holds whole numbers up to {high:,.0f}, read as 16 bit: data.levels={2**bits} for {bits} bits."
            )
        return reading.guess("levels", bins, doubt).decided(range=(0.0, bins - 1.0))
    fix = "divide it by 255" if low >= 0 and high <= 255 else "scale it into [-1, 1]"
    raise UserError(
        f"{name} holds values from {low:.6g} to {high:.6g}, expected [0, 1], [-1, 1] or grey levels 0 to 255: {fix}, "
        f"or state the ends of its scale with data.range=[{low:.6g},{high:.6g}]."
    )


def grid_of(reading: Reading) -> Grid:
    """How values are stored: grey level = (value - low) / (high - low) (levels - 1), or x = -1 at low and 1 at high."""
    assert reading.range is not None
    low, high = reading.range
    reach = (reading.levels - 1.0) if reading.levels else 2.0
    slope = reach / (high - low)
    return Grid(reading.levels or None, slope, -low * slope - (0.0 if reading.levels else 1.0))


def _row_digests(values: Any, limit: int | None) -> np.ndarray:
    little = values.dtype.newbyteorder("<")
    kind = little.str.encode()
    parts = (values[rows].astype(little, copy=False) for rows in blocks(values.shape))
    digests = [hashlib.sha256(kind + row.tobytes()[:limit]).digest() for part in parts for row in part]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(values), 32)
