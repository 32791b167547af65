"""x in the units of its data: grey levels, ranges and axes of an array; columns, words, dates and gaps of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from torch import Tensor

from diffrep.data.layout import order
from diffrep.data.reading import Reading
from diffrep.data.values import grid_of
from diffrep.runs.card import DataCard
from diffrep.runs.preparation import layout_of

HALF = 0.5  # least value of an indicator that counts as set
DAY = 86_400


def restored(card: DataCard, x: Tensor, covariate: Tensor | None = None) -> np.ndarray | pa.Table:
    """x (N, *shape) as the data of a run was: `array`, or `table` where its columns have names. covariate (N, K): 1 at
    the value of each, which becomes a column of the table."""
    values, reading = x.detach().cpu().double().numpy(), card.how()
    if reading.scaling is None:
        return array(card, reading, values)
    mean, std = (np.array(moment) for moment in reading.scaling)
    values = values * std + mean
    if reading.features is None:
        return values
    return table(reading, values, None if covariate is None else covariate.argmax(1).tolist())


def array(card: DataCard, reading: Reading, x: np.ndarray) -> np.ndarray:
    """(N, *shape) -> the axes, the scale and the type of the data: uint8 or uint16 if its grey levels are whole numbers
    from 0, float32 otherwise."""
    grid = grid_of(reading)
    kind = "float32"
    if card.bins is not None:
        plain = (grid.slope, grid.shift) == (1.0, 0.0) and card.bins <= 2**16
        kind = ("uint8" if card.bins <= 2**8 else "uint16") if plain else kind
    values = grid.values(x)
    layout = layout_of(reading, card.shape)
    values = values if "c" in layout or layout == "nf" else values[:, 0]
    return np.ascontiguousarray(values.transpose(np.argsort(order(layout)))).astype(kind)


def table(reading: Reading, values: np.ndarray, covariate: Sequence[int] | None = None) -> pa.Table:
    """Numbers (N, D) of a table, as `diffrep.data.columns.expanded` lays them out -> its columns in their order.

    Columns that no model learned (labels, names of rows, dropped columns) are left out. A number is missing if its
    indicator is set. A column of words has the word of its largest indicator, and none if the indicators sum to less
    than half. Counts come back as counts in 10,000. covariate: (N,) the place of its value in each row.
    """
    spoken = sum(map(len, reading.words.values()))
    count = values.shape[1] - len(reading.fills) - spoken
    numbers, marks = values[:, :count], values[:, count : count + len(reading.fills)]
    if reading.counts:
        numbers = np.expm1(numbers).clip(min=0)
    gaps = {name: marks[:, i] > HALF for i, name in enumerate(reading.fills)}
    columns: dict[str, pa.Array] = {}
    for i, name in enumerate(reading.number_names(count)):
        columns[name] = _typed(numbers[:, i], reading.columns.get(name, "float"), gaps.get(name))
    first = count + len(reading.fills)
    for name, words in reading.words.items():
        block = values[:, first : first + len(words)]
        first += len(words)
        labels = [None if none else words[k] for none, k in zip(block.sum(1) < HALF, block.argmax(1), strict=True)]
        columns[name] = pa.array(labels, pa.string())
    if reading.covariate is not None and covariate is not None:
        values_of = [*reading.covariates]
        columns[reading.covariate] = _parsed(
            [values_of[place] for place in covariate], reading.columns.get(reading.covariate, "word")
        )
    return pa.table(_ordered(columns, reading.columns))


def _ordered(columns: Mapping[str, pa.Array], source: Mapping[str, str]) -> dict[str, pa.Array]:
    ordered = [name for name in source if name in columns]
    return {name: columns[name] for name in (*ordered, *(name for name in columns if name not in ordered))}


def _parsed(values: Sequence[str], kind: str) -> pa.Array:
    """Values of a covariate, which are kept as words, as what their column holds."""
    if kind in ("int", "float"):
        return _typed(np.array(values, np.float64), kind, None)
    return pa.array([value == "True" for value in values]) if kind == "bool" else pa.array(values, pa.string())


def _typed(values: np.ndarray, kind: str, missing: np.ndarray | None) -> pa.Array:
    """Numbers (N,) as what their column holds; missing: (N,) where there is none."""
    if kind == "bool":
        return pa.array(values > HALF, pa.bool_(), mask=missing)
    if kind == "int":
        return pa.array(np.rint(values).astype(np.int64), pa.int64(), mask=missing)
    if kind == "day":
        return pa.array(np.floor(values / DAY + HALF).astype(np.int32), pa.int32(), mask=missing).cast(pa.date32())
    if kind == "second":
        return pa.array(np.rint(values).astype(np.int64), pa.int64(), mask=missing).cast(pa.timestamp("s"))
    return pa.array(values, pa.float64(), mask=missing)
