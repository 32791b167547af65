"""A lock (`tests/locked.py`): what is read of one small source of each kind, and the batches and views made of it."""

from __future__ import annotations

import io
import tarfile
import warnings
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from diffrep.data import load, views, whole
from diffrep.data.batches import batches
from diffrep.data.loader import Stream
from diffrep.data.streams.loader import ShardStream
from diffrep.errors import UserError
from diffrep.runs import DataCard
from diffrep.runs.preparation import of_card
from diffrep.runs.restored import restored
from diffrep.shapes import Draws
from locked import hold
from locked import whole as all_of
from locked_files import of_array, of_table
from samples import png, write_folder, write_parquet

N = 23  # no multiple of a batch, a class or a share


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).round(4)


def unit(*shape: int) -> np.ndarray:
    return np.tanh(numbers(*shape))


def grey(*shape: int, top: int = 256, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).integers(0, top, shape)
    return made.astype(np.uint8 if top <= 256 else np.uint16)


WORDS = np.array(["cat", "dog", "cow"])[np.arange(N) % 3]
PARTS = np.array(["train"] * 14 + ["val"] * 4 + ["test"] * 5)
ONES = np.eye(3)[np.arange(N) % 3]
HOLES = np.where(np.arange(N)[:, None] % 5 == np.arange(3), np.nan, numbers(N, 3))
FRAME = pd.DataFrame(
    {
        "a": numbers(N), "n": np.arange(N) % 4, "when": pd.date_range("2024-02-27", periods=N, freq="17h"),
        "town": [None if i % 7 == 0 else "xyz"[i % 3] for i in range(N)], "yes": np.arange(N) % 2 == 0,
        "gap": HOLES[:, 0], "label": WORDS, "id": [f"r{i}" for i in range(N)], "part": PARTS,
    }
)  # fmt: skip


def text(folder: Path, name: str, rows: list[list[object]], between: str = ",") -> Path:
    (folder / name).write_text("\n".join(between.join(map(str, row)) for row in rows) + "\n")
    return folder / name


def saved(folder: Path, name: str, array: np.ndarray | None = None, **arrays: np.ndarray) -> Path:
    np.savez(folder / name, **arrays) if array is None else np.save(folder / name, array)
    return folder / name


def pictures(folder: Path, table: str = "", **how: Any) -> Path:
    write_folder(folder / "p", how.pop("pixels", grey(N, 6, 5, 3)), **how)
    if table:
        (folder / "p" / "metadata.csv").write_text(table)
    return folder / "p"


def parquets(folder: Path) -> Path:
    """Shards in folders train/ and test/, and one that belongs to no split."""
    for name, rows in {"train/a": (0, 9), "train/b": (9, 14), "test/c": (14, 21), "d": (21, 23)}.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        pq.write_table(pa.Table.from_pandas(FRAME.iloc[slice(*rows)].drop(columns="part")), f"{folder / name}.parquet")
    return folder


def hub(folder: Path) -> Path:
    for name, rows in {"train-00000-of-00002": (0, 9), "train-00001-of-00002": (9, 15), "test-0": (15, 23)}.items():
        span = range(*rows)
        write_parquet(folder / f"{name}.parquet", grey(N, 6, 5, 3)[slice(*rows)], [i % 3 - 1 for i in span], ["b", "a"])
    return folder


def shards(folder: Path, tar: bool = False) -> str:
    for split, count in {"train-0": 9, "train-1": 13, "valid-0": 3, "test-0": 4}.items():
        rows = [{"image": {"bytes": png(Image.fromarray(x)), "path": f"{i}.png"}, "label": i % 2}
                for i, x in enumerate(grey(count, 4, 3, seed=len(split) + count))]  # fmt: skip
        if not tar:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet", row_group_size=4)
            continue
        with tarfile.open(folder / f"{split}.tar", "w") as file:
            for i, row in enumerate(rows):
                for suffix, content in (("png", row["image"]["bytes"]), ("cls", str(row["label"]).encode())):
                    member = tarfile.TarInfo(f"{i:03d}.{suffix}")
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))
    return f"stream:{folder}"


def sounds(folder: Path) -> Path:
    for i in range(8):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        wave = (numbers(300 + 10 * i, seed=i) * 5000).astype(np.int16)
        wavfile.write(folder / "ab"[i % 2] / f"{i}.wav", 4000, wave if i % 4 else np.stack([wave, -wave // 2], 1)[:, 0])
    return folder


def stack(folder: Path) -> Path:
    first, *others = (Image.fromarray(one) for one in grey(9, 5, 7, top=4000))
    first.save(folder / "stack.tif", save_all=True, append_images=others)
    return folder / "stack.tif"


def hdf5(folder: Path) -> str:
    with pytest.importorskip("h5py").File(folder / "a.h5", "w") as file:
        file["scans/images"], file["scans/labels"] = unit(N, 5, 4, 3).astype(np.float32), WORDS.tolist()
    return f"{folder / 'a.h5'}:/scans"


def zarred(folder: Path) -> Path:
    group = pytest.importorskip("zarr").open_group(str(folder / "a.zarr"), mode="w")
    group.create_array("images", data=grey(N, 5, 4))
    group.create_array("labels", data=np.arange(N) % 3)
    return folder / "a.zarr"


def volumes(folder: Path) -> Path:
    nibabel = pytest.importorskip("nibabel")
    for i in range(6):
        volume = nibabel.Nifti1Image((100 * numbers(4, 5, 3, seed=i)).astype(np.int16), np.eye(4))
        nibabel.save(volume, folder / f"{i}.nii")
    return folder


def cells(folder: Path, layer: bool = False, rows: bool = False) -> Any:
    anndata, sparse = pytest.importorskip("anndata"), pytest.importorskip("scipy.sparse")
    counts = np.random.default_rng(0).poisson(2.0, (N, 7)).astype(np.float32)
    kinds = pd.Categorical(WORDS.astype(object), pd.Index(["cow", "dog", "cat"], dtype=object))
    obs = pd.DataFrame({"cell_type": kinds, "age": numbers(N),
                        "batch": np.arange(N) % 2},
                       index=pd.Index([f"c{i}" for i in range(N)], dtype=object))  # fmt: skip
    genes = pd.DataFrame(index=pd.Index([f"g{i}" for i in range(7)], dtype=object))
    made = anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=genes)
    if layer:
        made.layers["counts"], made.X = made.X.copy(), made.X * 0.1
    if rows:
        made.write_h5ad(folder / "c.h5ad")
        return folder / "c.h5ad"
    return made


TABLE = [["a", "b", "d", "c", "part"], *([*row, w, p] for row, w, p in zip(numbers(N, 3), WORDS, PARTS, strict=True))]
NAMED = "file_name,label,weight\n" + "".join(f"{i:04d}.png,{WORDS[i]},{i / 4}\n" for i in range(N) if i != 3)
Source = Callable[[Path], Any]
SOURCES: dict[str, tuple[Source, dict[str, Any]]] = {  # what is read, and how
    "grey": (lambda folder: grey(N, 6, 5), {}),
    "grey, other shares": (lambda folder: grey(N, 6, 5), {"valid": 0.3, "test": 0.25, "seed": 3}),
    "colours, last": (lambda folder: saved(folder, "x.npy", grey(N, 6, 5, 3)), {}),
    "colours, first": (lambda folder: grey(N, 3, 6, 5), {}),
    "colours, by their layout": (lambda folder: grey(N, 3, 6, 3), {"layout": "nwhc"}),
    "sixteen bits": (lambda folder: grey(N, 6, 5, top=4096), {}),
    "sixteen bits, of 5000": (lambda folder: grey(N, 6, 5, top=4096), {"levels": 5000}),
    "a power of two": (lambda folder: np.minimum(grey(N, 6, 5, top=2000), 1024), {}),
    "black and white": (lambda folder: grey(N, 6, 5, top=2) > 0, {}),
    "zero and one": (lambda folder: grey(N, 6, 5, top=2).astype(np.int64), {}),
    "real": (lambda folder: unit(N, 6, 5), {}),
    "real, between zero and one": (lambda folder: numbers(N, 6, 5) % 1, {}),
    "real, with a range": (lambda folder: numbers(N, 6, 5).clip(-2, 2), {"range": (-2.5, 2)}),
    "signals": (lambda folder: unit(N, 2, 40), {}),
    "a volume": (lambda folder: grey(N, 4, 5, 6), {"layout": "ndhw"}),
    "vectors": (lambda folder: numbers(N, 5), {}),
    "vectors, large": (lambda folder: 1.7e9 + numbers(N, 2), {}),
    "counts": (lambda folder: grey(N, 6, top=900), {"counts": "yes"}),
    "a pair, words": (lambda folder: (numbers(N, 5), WORDS), {}),
    "a pair, one in k": (lambda folder: (grey(N, 6, 5), ONES), {}),
    "a pair, with gaps": (lambda folder: (numbers(N, 5), np.where(np.arange(N) % 4, np.arange(N) % 3, -1)), {}),
    "a pair, from two on": (lambda folder: (numbers(N, 5), np.arange(N) % 3 * 2 + 2), {}),
    "a pair, quantities": (lambda folder: (numbers(N, 5), numbers(N, seed=1)), {}),
    "a dictionary": (lambda folder: {"x": grey(N, 6, 5), "y": WORDS, "id": np.arange(N), "w": numbers(N)}, {}),
    "npz": (lambda folder: saved(folder, "a.npz", images=grey(N, 6, 5), labels=np.arange(N) % 3,
                                 label_names=np.array(["u", "v", "w"]), split=PARTS, pair=numbers(N, 2)), {}),
    "npz, one in k with a gap": (lambda folder: saved(folder, "a.npz", x=numbers(N, 4),
                                                       y=ONES * (np.arange(N) % 4 > 0)[:, None]), {}),
    "npz, splits": (lambda folder: saved(folder, "a.npz", x_train=grey(14, 6, 5), y_train=np.arange(14) % 3,
                                         x_test=grey(9, 6, 5, seed=1), y_test=np.arange(9) % 3), {}),
    "npz, another array": (lambda folder: saved(folder, "a.npz", x=grey(N, 6, 5), z=grey(N, 4, 4)), {"column": "z"}),
    "csv": (lambda folder: text(folder, "a.csv", TABLE), {"label_column": "c", "split_column": "part"}),
    "csv, some columns": (lambda folder: text(folder, "a.csv", TABLE), {"columns": ("a", "d"), "drop": ("b",)}),
    "csv, a covariate": (lambda folder: text(folder, "a.csv", TABLE), {"columns": ("a", "b"), "covariate": "c"}),
    "csv, all columns": (lambda folder: text(folder, "a.csv", TABLE), {"columns": ("all",), "label_column": "c"}),
    "csv, decimal commas": (lambda folder: text(folder, "a.csv", [
        ["a", "b"], *([f"{v:.3f}".replace(".", ",") for v in row] for row in numbers(N, 2))], ";"), {}),
    "csv, no header": (lambda folder: text(folder, "a.csv", numbers(N, 3).tolist()), {}),
    "csv, a header that counts": (lambda folder: text(folder, "a.csv", [[1, 2, 3], *numbers(N, 3).tolist()]), {}),
    "csv, a first line of numbers": (lambda folder: text(folder, "a.csv", [[0, 1, 3], *grey(N, 3).tolist()]), {}),
    "csv, gaps": (lambda folder: text(folder, "a.csv", [["a", "b", "d"], *(["" if v != v else v for v in row]
                                      for row in HOLES.tolist())]), {}),
    "csv, unlabelled": (lambda folder: text(folder, "a.csv", [["a", "b", "label"], *([*row, i % 4 - 1] for i, row in
                                            enumerate(numbers(N, 2)))]), {"unlabelled": "0"}),
    "tsv": (lambda folder: text(folder, "a.tsv", TABLE, "\t"), {}),
    "a frame": (lambda folder: FRAME, {}),
    "a frame, with its split": (lambda folder: FRAME, {"split_column": "part", "columns": ("all",)}),
    "parquet": (parquets, {}),
    "a hub": (hub, {}),
    "a stream": (shards, {}),
    "a stream of tars": (lambda folder: shards(folder, tar=True), {}),
    "pictures": (pictures, {}),
    "pictures, smaller": (pictures, {"size": (4, 3)}),
    "pictures, in classes": (lambda folder: pictures(folder, folders=[f"k{i % 3}" for i in range(N)]), {}),
    "pictures, in splits": (lambda folder: pictures(
        folder, folders=[f"{PARTS[i]}/{WORDS[i]}/s{i % 2}" for i in range(N)]), {"label_column": "folder:2"}),
    "pictures, named": (lambda folder: pictures(folder, NAMED), {}),
    "pictures, grey": (lambda folder: pictures(folder, pixels=grey(N, 6, 5)), {}),
    "pictures, deep": (lambda folder: pictures(folder, pixels=grey(N, 6, 5, top=4000)), {}),
    "pictures of Pillow": (lambda folder: [Image.fromarray(x) for x in grey(N, 6, 5, 3)], {}),
    "paths": (lambda folder: sorted(map(str, pictures(folder).iterdir())), {}),
    "sounds": (sounds, {"size": 320}),
    "sounds as pictures": (sounds, {"size": 320, "layout": "nhw"}),
    "pages": (stack, {}),
    "hdf5": (hdf5, {}),
    "zarr": (zarred, {}),
    "nifti": (volumes, {"range": (-400, 500)}),
    "cells": (cells, {}),
    "cells, a layer": (lambda folder: cells(folder, layer=True), {"covariate": "batch"}),
    "cells, a file": (lambda folder: cells(folder, rows=True), {"label_column": "batch"}),
}  # fmt: skip


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
    try:
        every = whole(str(source) if isinstance(source, Path) else source, reading=parts.train.reading.for_other())
    except UserError as mistake:
        return type(mistake).__name__
    return {"examples": len(every), "x": every.batch(torch.arange(len(every))).x,
            "labels": str(None if every.labels is None else every.labels.tolist())}  # fmt: skip


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
    hold("lazy", name, {"lazy": train.lazy, "x": train.batch(backwards).x, "odd": train.batch(backwards[::3]).x,
                        "taken": str(taken), "next": next(stream.batches(16)).x})  # fmt: skip


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
