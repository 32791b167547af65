"""Conversion of an estimator's input to numbers for a model, by rules that `fit` fixes; and back."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.utils.sparsefuncs import mean_variance_axis
from torch import Tensor

from diffrep.amounts import amount
from diffrep.data.examples import Examples, fingerprint_of
from diffrep.data.stores import Grid, InMemory, Store
from diffrep.data.values import GREY_LEVELS, STANDARDISED
from diffrep.errors import UserError
from diffrep.runs.preparation import Columns, GreyLevels, Preparation
from diffrep.shapes import Shape

NEVER = "\0"  # stands for a new word: no table holds it
WORDS = 64  # values of a column of words with an indicator of their own; rarer ones share one
CHANNELS = (1, 3, 4)  # sizes of a last axis that is taken for the channels of a picture


class Form(ABC):
    """How rows of X become examples: `shape` and `bins` of an example, and the preparation in words (`prepared`)."""

    shape: Shape
    bins: int | None = None
    prepared: str = ""

    @abstractmethod
    def store(self, x: Any) -> Store:
        """The rows of X as stored numbers, each by itself."""

    @abstractmethod
    def restore(self, x: np.ndarray) -> Any:
        """x (N, *shape), as a model gives it -> rows like those of X, in their units."""

    @abstractmethod
    def preparation(self) -> Preparation:
        """What `store` does, as a module that can be exported; see `diffrep.runs.preparation`."""

    def examples(self, x: Any, labels: Tensor | None = None, names: list[str] | None = None) -> Examples:
        """The rows of X as one set."""
        store = self.store(x)
        rows = torch.arange(x.shape[0])
        raw = (row.numpy().tobytes() for some in rows.split(500) for row in store.raw(some))
        digests = b"".join(hashlib.sha256(content).digest() for content in raw)
        hashes = np.frombuffer(digests, np.uint8).reshape(len(rows), 32)
        return Examples(
            name="array",
            split="all",
            shape=self.shape,
            bins=self.bins,
            labels=labels,
            label_names=names,
            ids=None,
            factors={},
            fingerprint=fingerprint_of(self.shape, self.bins, hashes),
            store=store,
            digests=hashes,
            prepared=self.prepared,
        )


class Table(Form):
    """Columns of numbers (N, F), dense or sparse, each standardised; a sparse matrix is made dense batch by batch."""

    def __init__(self, x: Any):
        if sparse.issparse(x):
            mean, variance = mean_variance_axis(x.tocsr().astype(np.float64), axis=0)
            std = np.sqrt(variance)
        else:
            x = np.asarray(x, np.float64)
            mean, std = x.mean(0), x.std(0)
        tiny = 10 * np.finfo(np.float64).eps * np.abs(mean)
        self.mean, self.std = mean, np.where(std > tiny, std, 1.0)
        self.shape, self.prepared = (len(mean),), STANDARDISED

    def standardised(self, x: Any) -> Tensor:
        dense = x.toarray() if sparse.issparse(x) else np.asarray(x)
        return torch.from_numpy(((dense.astype(np.float64) - self.mean) / self.std).astype(np.float32))

    def store(self, x: Any) -> Store:
        return Rows(x.tocsr(), self) if sparse.issparse(x) else InMemory(self.standardised(x))

    def restore(self, x: np.ndarray) -> np.ndarray:
        return x.astype(np.float64) * self.std + self.mean

    def preparation(self) -> Columns:
        names = [f"number {i}" for i in range(len(self.mean))]
        return Columns(names, torch.from_numpy(self.mean), torch.from_numpy(self.std))


class Rows(Store):
    """Rows of a sparse matrix, made dense and standardised at each access."""

    lazy = True

    def __init__(self, matrix: Any, table: Table, rows: Tensor | None = None):
        self.matrix, self.table = matrix, table
        self.rows = torch.arange(matrix.shape[0]) if rows is None else rows

    def raw(self, index: Tensor) -> Tensor:
        return self.table.standardised(self.matrix[self.rows[index.cpu()].numpy()])

    def subset(self, index: Tensor) -> Rows:
        return Rows(self.matrix, self.table, self.rows[index.cpu()])

    def to(self, device: torch.device | str) -> Rows:
        return self


class Array(Form):
    """Pictures, signals or volumes (N, ...), or flat rows with `shape`; grey levels, or numbers on one scale.

    uint8, uint16 and bool have 256, 65,536 and 2 grey levels. Other whole numbers from 0 to m are grey levels too: m +
    1 of them up to m = 127, then 256. Other numbers in [0, 1] or [-1, 1] keep that range; all others are mapped from
    their least and largest value to [-1, 1].
    """

    def __init__(self, x: np.ndarray, shape: Shape | None):
        self.flat = x.ndim == 2
        self.moved = shape is None and x.ndim == 4 and x.shape[-1] in CHANNELS and x.shape[1] not in CHANNELS
        if shape is None:
            shape = (1, *x.shape[1:]) if x.ndim == 3 else x.shape[1:]
            shape = (shape[-1], *shape[:-1]) if self.moved else shape
        self.given, self.shape, self.kind = x.shape[1:], tuple(int(n) for n in shape), x.dtype
        if np.prod(self.shape) != np.prod(self.given):
            raise UserError(
                f"shape={self.shape} has {amount(math.prod(self.shape), 'number')} and a row of X has"
                f" {math.prod(self.given)}: give the shape of one example, channels first."
            )
        self.grid = _grid(x)
        self.bins = self.grid.bins

    def store(self, x: Any) -> Store:
        x = np.asarray(x)
        if x.shape[1:] != self.given:
            raise ValueError(f"X has examples of shape {x.shape[1:]}, expected {self.given} as in fit")
        if self.bins is not None and len(x) and not (x.min() >= 0 and x.max() < self.bins):
            raise UserError(
                f"X holds values from {x.min()} to {x.max()} and was fitted on grey levels 0 to {self.bins - 1}: scale"
                " it as in fit."
            )
        x = np.moveaxis(x, -1, 1) if self.moved else x
        return InMemory(self.grid.store(x.reshape(len(x), *self.shape)))

    def restore(self, x: np.ndarray) -> np.ndarray:
        x = self.grid.values(x)
        x = np.moveaxis(x, 1, -1) if self.moved else x
        return x.reshape(len(x), *self.given).astype(self.kind if self.bins is not None else np.float64)

    def preparation(self) -> GreyLevels:
        layout = "nhwc" if self.moved else {1: "nf", 2: "ncl", 3: "nchw", 4: "ncdhw"}[len(self.shape)]
        return GreyLevels(self.shape, self.bins, layout, self.grid.slope, self.grid.shift, self.given)


def _grid(x: np.ndarray) -> Grid:
    """The scale of x."""
    low, high = float(x.min()), float(x.max())
    if x.dtype.name in GREY_LEVELS:
        return Grid(GREY_LEVELS[x.dtype.name])
    if low >= 0 and 1 < high <= 65535 and np.array_equal(x, np.rint(x)):
        return Grid(int(high) + 1 if high <= 127 else 256 if high <= 255 else 65536)
    if low >= -1 and high <= 1:
        return Grid(None, slope=2.0, shift=-1.0) if low >= 0 else Grid(None)
    slope = 2 / (high - low) if high > low else 1.0
    return Grid(None, slope=slope, shift=-1 - slope * low)


class Frame(Form):
    """A DataFrame of numbers, words, dates and gaps, through one ColumnTransformer; all columns are standardised.

    Numbers and dates (seconds since 1970): a gap becomes the mean, and a further column marks gaps. Words, categories
    and truth values: one indicator for each value (values after the 64 most frequent share one), and one for a gap.
    """

    def __init__(self, x: Any):
        self.columns, self.types = list(x.columns), dict(x.dtypes)
        kinds = {name: kind_of(x[name]) for name in self.columns}
        of = {kind: [name for name in self.columns if kinds[name] == kind] for kind in ("number", "date", "word")}
        number = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
        date = make_pipeline(
            FunctionTransformer(seconds), SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler()
        )
        word = make_pipeline(
            FunctionTransformer(words),
            OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=WORDS, sparse_output=False),
            StandardScaler(),
        )
        steps = [("number", number, of["number"]), ("date", date, of["date"]), ("word", word, of["word"])]
        self.transformer = ColumnTransformer([step for step in steps if step[2]]).fit(x)
        self.steps = {name: _step(_seconds(x[name])) for name in of["date"]}
        self.shape = (self.transformer.transform(x[:1]).shape[1],)
        self.prepared = "words one-hot, gaps filled and marked, standardised"

    def store(self, x: Any) -> Store:
        return InMemory(torch.from_numpy(self.transformer.transform(x).astype(np.float32)))

    def restore(self, x: np.ndarray) -> Any:
        import pandas as pd

        columns: dict[str, np.ndarray] = {}
        x = x.astype(np.float64)
        for name, pipeline, names in self.transformer.transformers_:
            if name == "remainder":
                continue
            block = pipeline[-1].inverse_transform(x[:, self.transformer.output_indices_[name]])
            if name == "word":
                columns |= dict(zip(names, pipeline[1].inverse_transform(block).T, strict=True))
                continue
            values, gaps = block[:, : len(names)], block[:, len(names) :]
            for place, column in enumerate(pipeline[-2].indicator_.features_):
                values[gaps[:, place] > 0.5, column] = np.nan
            steps = np.array([self.steps.get(column, 0.0) for column in names])
            values = np.where(steps > 0, np.rint(values / np.where(steps > 0, steps, 1.0)) * steps, values)
            columns |= dict(zip(names, values.T, strict=True))
        return pd.DataFrame({name: _as_it_was(columns[name], self.types[name]) for name in self.columns})

    def preparation(self) -> Columns:
        """Numbers, then dates as seconds since 1970; of words the places among those of the training split."""
        blocks = {name: (steps, names) for name, steps, names in self.transformer.transformers_ if name != "remainder"}
        names = [c for kind in ("number", "date") if kind in blocks for c in blocks[kind][1]]
        fills: dict[int, float] = {}
        vocabulary: dict[str, tuple[str, ...]] = {}
        tables: list[Tensor] = []
        places: list[int] = []
        for kind, (steps, columns) in blocks.items():
            if kind == "word":
                vocabulary = {c: tuple(map(str, words)) for c, words in zip(columns, steps[1].categories_, strict=True)}
                tables = _tables(steps[1])
                width = sum(table.shape[1] for table in tables)
                places += range(2 * len(names), 2 * len(names) + width)
                continue
            first, imputer = len(fills), steps[-2]
            fills |= {first + i: float(mean) for i, mean in enumerate(imputer.statistics_)}
            places += range(first, len(fills))
            places += [len(names) + first + int(i) for i in imputer.indicator_.features_]
        scalers = [steps[-1] for steps, _ in blocks.values()]
        mean, std = (np.concatenate([getattr(s, name) for s in scalers]) for name in ("mean_", "scale_"))
        return Columns(names, torch.from_numpy(mean), torch.from_numpy(std), fills, vocabulary, tables, places)


def _tables(encoder: OneHotEncoder) -> list[Tensor]:
    """Of each column of words (V + 1, K): the indicators of each word, and in the last row of a new word."""
    usual = [words[0] for words in encoder.categories_]
    tables, first = [], 0
    for column, words in enumerate(encoder.categories_):
        rare = encoder.infrequent_categories_[column] if hasattr(encoder, "infrequent_categories_") else None
        width = len(words) if rare is None else len(words) - len(rare) + 1
        rows = np.array([[*usual[:column], word, *usual[column + 1 :]] for word in (*words, NEVER)], dtype=object)
        tables.append(torch.from_numpy(encoder.transform(rows)[:, first : first + width]))
        first += width
    return tables


def kind_of(column: Any) -> str:
    """ "number", "date" or "word" of a column of a DataFrame."""
    from pandas.api import types

    if types.is_bool_dtype(column):
        return "word"
    if types.is_numeric_dtype(column):
        return "number"
    return "date" if types.is_datetime64_any_dtype(column) else "word"


def seconds(x: Any) -> np.ndarray:
    """Columns of dates -> seconds since 1970, NaN for a gap."""
    return np.column_stack([_seconds(x[name]) for name in x.columns])


def _seconds(column: Any) -> np.ndarray:
    import pandas as pd

    dates = pd.to_datetime(column, utc=True)
    since = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return since.to_numpy(np.float64)


def _step(dates: np.ndarray) -> float:
    """The resolution of dates in seconds: a day where all are whole days, a second otherwise."""
    present = dates[np.isfinite(dates)]
    return 86_400.0 if len(present) and (present % 86_400 == 0).all() else 1.0


def words(x: Any) -> np.ndarray:
    """Columns of words -> objects, "" for a gap."""
    return np.column_stack(
        [["" if gap else str(v) for v, gap in zip(x[c], x[c].isna(), strict=True)] for c in x]
    ).astype(object)


def _as_it_was(values: np.ndarray, kind: Any) -> Any:
    """A column of the type that it had in `fit`, where that type can hold gaps."""
    import pandas as pd
    from pandas.api import types

    column = pd.Series(values)
    if types.is_bool_dtype(kind):
        return column.map({"True": True, "False": False, "": None})
    if types.is_datetime64_any_dtype(kind):
        dates = pd.to_datetime(column.astype(float), unit="s", utc=True)
        return dates if getattr(kind, "tz", None) is not None else dates.dt.tz_localize(None)
    if types.is_numeric_dtype(kind):
        column = column.astype(float)
        return column.round().astype(kind) if types.is_integer_dtype(kind) and not column.isna().any() else column
    return column.where(column != "", None)
