"""Raw examples -> x, as a module that can be exported: the steps of a reader of arrays, in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from diffrep.data.layout import order
from diffrep.data.reading import Reading
from diffrep.data.values import PER_ROW, grid_of
from diffrep.errors import UserError
from diffrep.runs.card import DataCard
from diffrep.shapes import Data, Shape

BYTE = 2**8  # grey levels that a byte holds


@dataclass(frozen=True)
class Input:
    """An input of an exported encoder: its name, NumPy type and shape of one example; low, high: its usual range,
    of each column of a table.

    axes: the letters of `diffrep.data.reading.AXES`, n first. columns: their names, where they have some. words: of
    each column of words those that have a number (their place; -1: another word, or none). gaps: columns that may lack
    numbers, as NaN.
    """

    name: str
    type: str
    shape: Shape
    axes: str
    low: float | tuple[float, ...] = -1.0
    high: float | tuple[float, ...] = 1.0
    columns: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gaps: tuple[int, ...] = ()

    def drawn(self, n: int, seed: int) -> Tensor:
        """n examples of random numbers in its range, some of them missing where some may be."""
        generator = torch.Generator().manual_seed(seed)
        kind = getattr(torch, self.type)
        if self.words:
            return torch.stack([torch.randint(-1, len(w), (n,), generator=generator) for w in self.words.values()], 1)
        low, high = (torch.tensor(end, dtype=torch.float64) for end in (self.low, self.high))
        share = torch.rand(n, *self.shape, generator=generator, dtype=torch.float64)
        if not kind.is_floating_point:
            return (low + (high - low + 1) * share).floor().to(kind)
        values = (low + (high - low) * share).to(kind)
        for column in self.gaps:
            values[torch.rand(n, generator=generator) < 0.5, column] = torch.nan
        return values


class Prepared(nn.Module):
    """x itself, unchanged."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.inputs = (Input("x", "float32", shape, "n" + "f" * (len(shape) == 1)),)

    def forward(self, x: Data) -> Data:
        return x


class GreyLevels(nn.Module):
    """Arrays of numbers -> x: axes in order, then grey levels to the middle of their cells, or a range to [-1, 1].

    layout: the axes of what is given, such as "nhwc". slope, shift: as in `diffrep.data.stores.Grid`. given: the shape
    of an example that is brought to `layout` without moving a number, such as (784,).
    """

    def __init__(
        self, shape: Shape, bins: int | None, layout: str, slope: float, shift: float, given: Shape | None = None
    ):
        super().__init__()
        self.bins, self.order, self.slope, self.shift = bins, order(layout), slope, shift
        self.channels = "c" in layout or layout == "nf"
        whole = shape if self.channels else shape[1:]
        laid = [0] * len(layout)
        for place, axis in enumerate(self.order[1:]):
            laid[axis] = whole[place]
        self.laid, given = tuple(laid[1:]), tuple(laid[1:]) if given is None else given
        plain = bins is not None and (slope, shift) == (1.0, 0.0)
        kind = ("uint8" if bins <= BYTE else "int32") if plain and bins else "float32"
        ends = (0.0, bins - 1.0) if bins else (-1.0, 1.0)
        low, high = ((end - shift) / slope for end in ends)
        self.inputs = (Input("x", kind, given, layout if given == self.laid else "nf", low, high),)

    def forward(self, raw: Tensor) -> Data:
        values = raw.reshape(-1, *self.laid).permute(self.order)
        values = values if self.channels else values.unsqueeze(1)
        if self.bins is None:
            return values.float() * self.slope + self.shift
        if (self.slope, self.shift) != (1.0, 0.0):
            values = (values.double() * self.slope + self.shift).round().clamp(0, self.bins - 1)
        return (2 * values.float() + 1) / self.bins - 1


class Columns(nn.Module):
    """Columns of numbers (B, F) float64, and places of words (B, W) where there are such -> standardised x (B, D).

    fills: column -> the value of a missing number; each has an indicator too. one_hot: for each column of words
    (V + 1, K), the indicators of each of its V words, and in the last row of any other word. places: D places of x
    among numbers, holes and words, in this order. counts: see `diffrep.data.values.of_table`.
    """

    def __init__(
        self,
        names: Sequence[str],
        mean: Tensor,
        std: Tensor,
        fills: Mapping[int, float] | None = None,
        words: Mapping[str, tuple[str, ...]] | None = None,
        one_hot: Sequence[Tensor] = (),
        places: Sequence[int] | None = None,
        counts: bool = False,
    ):
        super().__init__()
        fills, words = fills or {}, words or {}
        self.counts, self.lacking = counts, [*fills]
        filled = torch.zeros(len(names), dtype=torch.float64)
        for column, number in fills.items():
            filled[column] = number
        self.register_buffer("filled", filled)
        self.register_buffer("mean", mean.double())
        self.register_buffer("std", std.double())
        self.register_buffer("places", torch.tensor(range(len(mean)) if places is None else places))
        self.one_hot = nn.ParameterList([nn.Parameter(table.double(), requires_grad=False) for table in one_hot])
        own = {int(place): i for i, place in enumerate(self.places)}  # place of a number -> its place in x
        middle = [float(mean[own[i]]) for i in range(len(names))]
        reach = [float(std[own[i]]) for i in range(len(names))]
        low = (0.0,) * len(names) if counts else tuple(m - 2 * r for m, r in zip(middle, reach, strict=True))
        high = (20.0,) * len(names) if counts else tuple(m + 2 * r for m, r in zip(middle, reach, strict=True))
        given = Input("x", "float64", (len(names),), "nf", low, high, tuple(names), gaps=tuple(fills))
        self.inputs = (given, Input("words", "int64", (len(words),), "nf", words=words)) if words else (given,)

    filled: Tensor
    mean: Tensor
    std: Tensor
    places: Tensor

    def forward(self, numbers: Tensor, words: Tensor | None = None) -> Data:
        holes = numbers.isnan()
        table = torch.where(holes, self.filled, numbers)
        if self.counts:
            table = torch.log1p(PER_ROW * table / table.sum(1, keepdim=True).clamp(min=1))
        blocks = [table, holes[:, self.lacking].double()]
        if words is not None:
            for column, one_hot in enumerate(self.one_hot):
                place = words[:, column]
                blocks.append(one_hot[torch.where(place < 0, one_hot.shape[0] - 1, place)])
        values = torch.cat(blocks, 1)[:, self.places]
        return ((values - self.mean) / self.std).float()


Preparation = Prepared | GreyLevels | Columns  # each has `inputs`


def of_card(card: DataCard) -> Preparation:
    """The preparation of raw examples like those that a run was trained on. UserError: a table of unknown columns."""
    reading = card.how()
    return of_table(reading) if reading.scaling is not None else of_array(reading, card)


def of_array(reading: Reading, card: DataCard) -> GreyLevels:
    """Pictures that came as files are given as Pillow has them, channels last; arrays as they lay in their file."""
    grid = grid_of(reading)
    return GreyLevels(card.shape, card.bins, layout_of(reading, card.shape), grid.slope, grid.shift)


def layout_of(reading: Reading, shape: Shape) -> str:
    """The axes of the arrays of a run; those of pictures that came as files are Pillow's."""
    if reading.layout is not None:
        return reading.layout
    layout = {1: "nf", 2: "ncl", 3: "nhwc", 4: "ncdhw"}[len(shape)]
    return "nhw" if layout == "nhwc" and shape[0] == 1 else layout


def of_table(reading: Reading) -> Columns:
    """The columns of a table as `diffrep.data.columns` expands them."""
    assert reading.scaling is not None
    mean, std = (torch.tensor(moment, dtype=torch.float64) for moment in reading.scaling)
    spoken = sum(map(len, reading.words.values()))
    count = len(mean) - len(reading.fills) - spoken
    names = reading.number_names(count)
    if not set(reading.fills) <= set(names):
        raise UserError("the table of this run has columns without a name: export it with the input already prepared.")
    one_hot = [torch.cat([torch.eye(len(w)), torch.zeros(1, len(w))]) for w in reading.words.values()]
    fills = {names.index(column): number for column, number in reading.fills.items()}
    return Columns(names, mean, std, fills, reading.words, one_hot, counts=bool(reading.counts))
