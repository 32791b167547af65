"""A name, a folder, a file or an array -> three disjoint splits of `Examples`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffrep.amounts import amount
from diffrep.data.columns import expanded, fitted, strange
from diffrep.data.examples import Examples, fingerprint_of
from diffrep.data.raw import Raw
from diffrep.data.readers.source import read
from diffrep.data.reading import Reading
from diffrep.data.stores import InMemory, Standardised, Store
from diffrep.data.streams.shards import Shards
from diffrep.errors import UserError

AT_ONCE = 500  # rows of a store that are in memory at a time


@dataclass(frozen=True)
class Splits:
    """Three disjoint splits of a data set; `skipped` counts the files that could not be read (with skip_bad).

    shards: of a stream, all its training examples, of which `train` is a sample.
    """

    train: Examples
    valid: Examples
    test: Examples
    skipped: int = 0
    shards: Shards | None = None

    @property
    def trained_on(self) -> int:
        """The number of training examples."""
        return len(self.train if self.shards is None else self.shards)


def load(
    source: object,
    *,
    valid: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    skip_bad: bool = False,
    label_column: str | None = None,
    reading: Reading | None = None,
    **how: Any,
) -> Splits:
    """Read a data set and cut it into splits.

    | source | what is read |
    |---|---|
    | "digits" | 1,797 digits of 8 x 8 with 17 grey levels, inside scikit-learn |
    | "digits-factors" | the same digits drawn again with strokes and colours as factors: see `diffrep.data.factors` |
    | array or tensor, or (x, labels) | pictures, signals, volumes or tables: see `diffrep.data.values.of_array` |
    | data frame, dictionary, data set, paths | see `diffrep.data.readers.objects` |
    | `.npy`, `.npz` | the same; in `.npz` x, images, data, counts or features, with y or labels; the rest: factors |
    | folder of pictures | flat, class folders, train/ valid/ test/, metadata.csv (file_name, label, factors) |
    | `.parquet`, folder of them | hub layout: pictures {bytes, path} and a ClassLabel, or numeric columns |
    | `.csv`, `.tsv`, `.txt` | a table of numbers; a column label, words as factors |
    | "owner/name" | a data set of the Hugging Face hub (extra `hub`) |
    | "stream:..." | Parquet or tar shards, here or behind a URL: see `diffrep.data.streams.source` |

    Pictures are grey, RGB, RGBA or 16-bit; grey ones beside RGB ones become RGB. Up to 1 GiB (decoded) is held in
    memory; encoded pictures and `.npy` pixels above that are read as they are needed. A table is standardised with
    the mean and standard deviation of its training split.

    valid, test: shares of the examples, at least one each; a split that the source has is kept, and what is missing
    is cut from its training split (valid is then a share of that). seed: of the cut. skip_bad: go on without pictures
    that cannot be read. label_column: where the labels are, when not in a column of a usual name. how: further
    settings of the reading, see `Reading.asked`. reading: that of a run, in place of both. `.train.reading` says how
    the data was read and what was guessed.
    UserError: a source that is missing, broken, of mixed sizes, of a wrong range, not finite, or under 3 examples.
    """
    if not (0 < valid < 1 and 0 < test < 1 and valid + test < 1):
        raise UserError(f"valid={valid} and test={test} are shares of the data: give two above 0 with a sum below 1.")
    name, raw = read(source, reading or Reading.asked(label_column=label_column, **how), skip_bad)
    rows = cut(len(raw.values.digests), raw.split, name, valid, test, seed)
    if raw.split is None:
        raw = replace(raw, reading=replace(raw.reading, split="cut"))
    every = _examples(raw, name, rows["train"])
    train, valid_, test_ = (replace(every.subset(rows[split]), split=split) for split in ("train", "valid", "test"))
    if raw.shards is not None:
        train = replace(train, fingerprint=raw.shards.fingerprint(train.fingerprint))
    return Splits(train, valid_, test_, raw.skipped, raw.shards)


def whole(
    source: object,
    *,
    skip_bad: bool = False,
    label_column: str | None = None,
    scaling: tuple[Tensor, Tensor] | None = None,
    reading: Reading | None = None,
    **how: Any,
) -> Examples:
    """All examples of a source, one or more, in its own order, as the split "all". See `load`.

    reading: that of a run, which is applied: nothing is guessed. scaling: mean and standard deviation (F,) that a table
    is standardised with, as a model was trained; its own otherwise. UserError: those of `load`, or another number of
    features.
    """
    asked = reading or Reading.asked(label_column=label_column, **how)
    if scaling is not None:
        asked = replace(asked, scaling=(tuple(scaling[0].tolist()), tuple(scaling[1].tolist())))
    name, raw = read(source, asked, skip_bad)
    if raw.skipped:
        raw = replace(raw, reading=raw.reading.noted(f"{amount(raw.skipped, 'file')} of {name} could not be read."))
    if raw.shards is not None:
        raise UserError(
            f"{name} is a stream, which is never read whole: give its files one by one, or encode them with"
            " diffrep.encoder in an engine for large data (docs/tutorials/many-machines.md)."
        )
    return _examples(raw, name, torch.arange(len(raw.values.digests)))


def cut(total: int, given: np.ndarray | None, name: str, valid: float, test: float, seed: int) -> dict[str, Tensor]:
    """Positions of each split, rising: those `given`, (total,) of "train", "valid", "test"; else by a seeded cut."""
    given = given if given is not None else np.full(total, "train")
    rows = {split: torch.from_numpy(np.flatnonzero(given == split)) for split in ("train", "valid", "test")}
    missing = [(split, share) for split, share in (("test", test), ("valid", valid)) if not len(rows[split])]
    pool, free = len(rows["train"]), rows["train"]
    if pool < 1 + len(missing):
        here = f"{pool} of them for training, " if pool < total else ""
        raise UserError(
            f"{name} has {amount(total, 'example')}, {here}expected at least 3, one each for training, "
            "validation and test: add some."
        )
    free = free[torch.randperm(pool, generator=torch.Generator().manual_seed(seed))]
    for place, (split, share) in enumerate(missing):
        left = len(missing) - place  # the splits still to be served, and training, get one example at least
        count = min(max(1, round(pool * share)), len(free) - left)
        rows[split], free = free[:count].sort().values, free[count:]
    return {**rows, "train": free.sort().values}


def _examples(raw: Raw, name: str, rows: Tensor) -> Examples:
    """All examples as one set; a table is standardised by its reading, or else by the statistics over `rows`."""
    values, store, scaling = raw.values, raw.values.store, None
    if values.table and store.lazy:
        known = raw.reading.scaling is not None
        scaling = _stated(raw.reading, values.shape[0], name) if known else _moments(store, rows)
        store = Standardised(store, *scaling)
    elif values.table:
        if raw.reading.scaling is None:
            raw = replace(raw, reading=fitted(raw, rows.numpy(), name))
        raw = replace(raw, reading=raw.reading.noted(*strange(raw, name)))
        table = torch.from_numpy(expanded(raw, name))
        scaling = _scaling(raw.reading, table, rows, name)
        mean, std = (moment.double() for moment in scaling)
        store = InMemory(((table - mean) / std).float())
        values = replace(values, shape=tuple(table.shape[1:]))
    covariate, reading = raw.covariates(rows)
    labels, label_names, reading = replace(raw, reading=reading).classes()
    if scaling is not None:
        reading = replace(reading, scaling=(tuple(scaling[0].tolist()), tuple(scaling[1].tolist())))
    return Examples(
        name=name,
        split="all",
        shape=tuple(values.shape),
        bins=values.grid.bins,
        labels=labels,
        label_names=label_names,
        ids=raw.ids,
        factors=raw.factors,
        fingerprint=fingerprint_of(values.shape, values.grid.bins, values.digests),
        store=store,
        digests=values.digests,
        scaling=scaling,
        prepared=values.prepared,
        reading=replace(reading, shape=tuple(values.shape)),
        rows=raw.rows,
        own_split=raw.split,
        covariate=covariate,
        parts=raw.parts or ((name, len(values.digests) + raw.skipped),),
    )


def _scaling(reading: Reading, table: Tensor, rows: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (F,): those of the reading, else over `rows`, float64; 1 if constant."""
    if reading.scaling is not None:
        return _stated(reading, table.shape[1], name)
    chosen = table[rows]
    std = chosen.std(0, correction=0)
    return chosen.mean(0), torch.where(chosen.amax(0) > chosen.amin(0), std, torch.ones_like(std))


def _stated(reading: Reading, features: int, name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation that a reading states; UserError: of another number of features."""
    assert reading.scaling is not None
    mean, std = (torch.tensor(moment, dtype=torch.float64) for moment in reading.scaling)
    if len(mean) != features:
        raise UserError(
            f"{name} has {amount(features, 'feature')}, expected {len(mean)}: give the columns of the training."
        )
    return mean, std


def _moments(store: Store, rows: Tensor) -> tuple[Tensor, Tensor]:
    """As `_scaling` over `rows`, in two passes over a store that is read lazily."""
    parts = rows.split(AT_ONCE)
    total = torch.stack([store.raw(part).sum(0) for part in parts]).sum(0)
    mean = total / len(rows)
    square = torch.stack([(store.raw(part) - mean).square().sum(0) for part in parts]).sum(0)
    first = store.raw(rows[:1])[0]
    varies = torch.stack([(store.raw(part) != first).any(0) for part in parts]).any(0)
    return mean, torch.where(varies, (square / len(rows)).sqrt(), torch.ones_like(square))
