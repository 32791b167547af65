"""A lock (`tests/locked.py`): what is read of one small source of each kind, and the batches and views made of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from diffrep.config import Settings, override
from diffrep.data import load, views, whole
from diffrep.data.batches import batches
from diffrep.data.loader import Stream
from diffrep.data.streams.loader import ShardStream
from diffrep.errors import UserError
from diffrep.runs import DataCard, splits_of
from diffrep.runs.preparation import of_card
from diffrep.runs.restored import restored
from diffrep.shapes import Draws
from locked import hold
from locked import whole as all_of
from locked_files import of_array, of_table
from sources import SOURCES, N, grey, numbers, saved, shards, unit


def plainly(words: str, folder: Path) -> str:
    return words.replace(str(folder), "FOLDER")


def of_splits(parts: Any, folder: Path) -> dict[str, Any]:
    """All that the splits say, and all that a run keeps of them."""
    facts: dict[str, Any] = {"skipped": parts.skipped, "trained_on": parts.trained_on}
    for split in ("train", "valid", "test"):
        part = getattr(parts, split)
        batch = part.batch(torch.arange(len(part)))
        facts[split] = {
            "x": batch.x, "labels": str(None if batch.label is None else batch.label.tolist()), "ids": str(part.ids),
            "covariate": str(None if batch.covariate is None else batch.covariate.argmax(1).tolist()),
            "rows": str(None if part.rows is None else part.rows.tolist()), "name": part.split,
            "factors": {name: column if column.dtype.kind in "fiub" else str(column.tolist())
                        for name, column in part.factors.items()},
            "evenly": str(part.evenly(5).tolist()), "labelled": str(part.labelled_first(5).tolist()),
            "histogram": part.histogram(), "moments": part.moments(), "entropy": part.entropy(), "lazy": part.lazy,
            "places": str(part.places(part.evenly(2)).tolist()),
        }  # fmt: skip
    train, card = parts.train, DataCard.of(parts)
    whole_numbers = train.bins is not None
    facts["fingerprints"] = card.fingerprints if whole_numbers else None  # the others depend on the last digit
    facts["reading"] = plainly(
        str({k: v for k, v in asdict(train.reading).items() if k not in ("scaling", "fills")}), folder
    )
    facts["scaling"], facts["prepared"] = train.scaling, train.prepared
    facts["fills"], facts["classes"] = str(dict(train.reading.fills)), str(train.label_names)
    facts["lines"] = plainly(str(train.reading.lines()), folder)
    facts["line"] = plainly(train.reading.line(), folder)
    facts["doubts"] = plainly(str(train.reading.doubts()), folder)
    said = {k: v for k, v in card.facts_in_words(parts).items() if k != "fingerprints"}
    facts["card"] = {"said": said, "shape": str(card.shape), "bins": card.bins, "latent": card.latent}
    facts["card"] |= {k: v for k, v in card.public().items() if k in ("examples", "skipped", "prepared")}
    x = parts.test.batch(parts.test.evenly(5))
    back = restored(card, x.x, x.covariate)
    facts["restored"] = of_table(back) if isinstance(back, pa.Table) else of_array(back)
    prepared = of_card(card)
    drawn = [one.drawn(5, 3) for one in prepared.inputs]
    facts["prepared from"] = [plainly(str(prepared.inputs), folder), *drawn, prepared(*drawn)]
    known = card.facts(train)
    facts["facts"] = {"classes": known.classes, "latent": known.latent, "covariates": known.covariates,
                      "counts": known.counts, "moments": known.moments}  # fmt: skip
    return facts


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_read_stays(name, tmp_path):
    """Read whole and cut, and read again as a run reads other data: by what it decided."""
    make, how = SOURCES[name]
    source = make(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = load(str(source) if isinstance(source, Path) else source, **how)
        facts = of_splits(parts, tmp_path)
        facts["again"] = again(source, parts)
    hold("read", name, facts)


def again(source: Any, parts: Any) -> Any:
    """The same source as data of a run, and the last axes of an array exchanged."""
    given = {"": str(source) if isinstance(source, Path) else source}
    if isinstance(source, np.ndarray) and source.ndim > 2:
        given["turned"] = np.swapaxes(source, -1, -2)
    if parts.train.shape == (3, 3, 3):
        given["an array"] = grey(9, 3, 3, 3)
    if isinstance(source, np.ndarray) and source.ndim == 2 and source.dtype.kind == "f":
        given["with gaps"] = np.where(np.arange(source.size).reshape(source.shape) % 8 == 3, np.nan, source)
    facts = {}
    for name, other in given.items():
        try:
            every = whole(other, reading=parts.train.reading.for_other())
            labels = None if every.labels is None else every.labels.tolist()
            facts[name] = {"x": every.batch(torch.arange(len(every))).x, "labels": str(labels)}
        except UserError as mistake:
            facts[name] = {"x": str(mistake)}
    return facts


@pytest.mark.parametrize("name", ["colours, last", "npz", "pictures", "hdf5", "zarr", "cells, a file", "a hub"])
def test_what_stays_in_its_file_is_the_same(name, tmp_path, monkeypatch):
    """Read as it is used, in batches with two epochs, by the second of two processes."""
    for module in ("values", "albums", "readers.cells"):
        monkeypatch.setattr(f"diffrep.data.{module}.SMALL", 0)
    make, how = SOURCES[name]
    train = load(str(make(tmp_path)), **how).train
    backwards = torch.arange(len(train)).flip(0)[:7]
    stream = Stream(train, 6, seed=5, shard=1, shards=2)
    taken = [one.index.tolist() for one in islice(stream.batches(4), 9)]
    pairs = [train.batch(torch.arange(i, i + 2)).x for i in range(len(train) - 1)]  # with and without a gap
    ahead = Stream(train, 6, seed=5, workers=1) if name == "pictures" else stream
    facts = {"lazy": train.lazy, "pairs": torch.cat(pairs), "ahead": next(ahead.batches(16)).x, "taken": str(taken)}
    facts |= {"x": train.batch(backwards).x, "odd": train.batch(backwards[::3]).x}
    hold("lazy", name, facts)


def test_a_run_that_finds_its_examples_again_stays(tmp_path):
    """Among more than it was trained on, equal ones too."""
    x, named = grey(N, 2, 2, top=2), np.arange(N)
    settings = override(Settings(), [f"data.source={saved(tmp_path, 'a.npz', x=x, y=named % 3, id=named)}"])
    card = DataCard.of(splits_of(settings))
    more = np.concatenate([x[::-1], grey(9, 2, 2, top=3)])
    saved(tmp_path, "a.npz", x=more, y=np.arange(len(more)) % 3, id=np.arange(len(more)))
    told: list[str] = []
    parts = splits_of(settings, card, told.append)
    facts = {split: str(getattr(parts, split).ids) for split in ("train", "valid", "test")}
    hold("again", "more", facts | {"told": plainly(str(told), tmp_path)})


VIEWS: dict[str, Callable[[], views.View]] = {
    "crop": lambda: views.crop(0.4), "flip": lambda: views.flip, "jitter": lambda: views.jitter(0.3),
    "noisy": lambda: views.noisy(0.2), "erase": lambda: views.erase(0.6), "drop": lambda: views.drop(0.4),
    "chain": lambda: views.chain(views.flip, views.jitter(0.1), views.crop(0.7)),
    "hidden": lambda: lambda x, draws: views.hidden(x, draws, 0.4, 2),
}  # fmt: skip
OF_A_KIND = {"picture": (5, 3, 6, 5), "signal": (5, 2, 9), "volume": (5, 1, 4, 5, 3), "vector": (5, 7)}


@pytest.mark.parametrize("kind", OF_A_KIND)
def test_views_and_batches_stay(kind):
    """Of a picture that is no square, a signal, a volume and a vector."""
    x = torch.tensor(numbers(*OF_A_KIND[kind])).float()
    only = {"vector": ("noisy", "drop", "hidden")}.get(kind, tuple(VIEWS))
    facts = {name: VIEWS[name]()(x, Draws.of(3)) for name in only}
    examples = load(unit(N, *OF_A_KIND[kind][1:]), seed=1).train
    for size in (4, 50):
        several = list(batches(examples, size, 2, torch.device("cpu")))
        facts[f"batches of {size}"] = {"index": str([b.index.tolist() for b in several]), "x": several[-1].x,
                                       "draws": torch.stack([b.random.normal(3) for b in several])}  # fmt: skip
    stream = Stream(examples, 6, seed=1)
    facts["order"] = str([batch.index.tolist() for batch in islice(stream.batches(3), 8)])
    hold("views", kind, facts)


@pytest.mark.parametrize("tar", [False, True])
def test_batches_of_a_stream_stay(tar, tmp_path):
    parts = load(shards(tmp_path, tar))
    facts = {}
    for shard, processes, start in ((0, 1, 0), (1, 2, 8), (0, 2, 31)):
        stream = ShardStream(parts.shards, parts.train.reading, 8, 3, shard, processes)
        several = list(islice(stream.batches(start), 7))
        facts[f"{shard} of {processes} from {start}"] = {
            "index": str([one.index.tolist() for one in several]), "x": torch.cat([one.x for one in several]),
            "labels": str([one.label.tolist() for one in several])}  # fmt: skip
    facts["fingerprint"] = [parts.train.fingerprint, parts.valid.fingerprint]
    hold("streams", str(tar), facts)


def test_nothing_is_kept_of_what_is_gone():
    all_of("read", SOURCES)
    all_of("views", OF_A_KIND)
    all_of("streams", ["False", "True"])
    all_of("again", ["more"])
