"""One small odd source of each kind that can be read: files, folders, arrays and objects, of 23 examples mostly."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
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
    "colours, small": (lambda folder: grey(N, 3, 3, 3), {}),
    "sixteen bits": (lambda folder: grey(N, 6, 5, top=4096), {}),
    "sixteen bits, of 5000": (lambda folder: grey(N, 6, 5, top=4096), {"levels": 5000}),
    "a power of two": (lambda folder: np.minimum(grey(N, 6, 5, top=2000), 1024), {}),
    "whole numbers": (lambda folder: np.minimum(grey(N, 6, 5, top=2000), 1024).astype(np.int64), {}),
    "grey as floats": (lambda folder: grey(N, 6, 5).astype(np.float32), {}),
    "a data set": (lambda folder: torch.utils.data.TensorDataset(
        torch.from_numpy(grey(N, 6, 5)), torch.arange(N) % 3), {}),
    "pictures as bytes": (lambda folder: [png(Image.fromarray(x)) for x in grey(N, 6, 5)], {}),
    "sparse": (lambda folder: pytest.importorskip("scipy.sparse").csr_matrix(grey(N, 6, top=9)), {}),
    "black and white": (lambda folder: grey(N, 6, 5, top=2) > 0, {}),
    "zero and one": (lambda folder: grey(N, 6, 5, top=2).astype(np.int64), {}),
    "real": (lambda folder: unit(N, 6, 5), {}),
    "real, between zero and one": (lambda folder: numbers(N, 6, 5) % 1, {}),
    "real, with a range": (lambda folder: numbers(N, 6, 5).clip(-2, 2), {"range": (-2.5, 2)}),
    "signals": (lambda folder: unit(N, 2, 40), {}),
    "long signals": (lambda folder: grey(5, 2, 40_000).transpose(0, 2, 1).copy(), {"layout": "nlc"}),
    "a volume": (lambda folder: grey(N, 4, 5, 6), {"layout": "ndhw"}),
    "vectors": (lambda folder: numbers(N, 5), {}),
    "vectors, large": (lambda folder: 1.7e9 + numbers(N, 2), {}),
    "counts": (lambda folder: grey(N, 6, top=900), {"counts": "yes"}),
    "a pair, words": (lambda folder: (numbers(N, 5), WORDS), {}),
    "a pair, one in k": (lambda folder: (grey(N, 6, 5), ONES), {}),
    "a pair, a column with gaps": (lambda folder: (numbers(N, 5), FRAME["town"]), {}),
    "npz, an absent class": (lambda folder: saved(folder, "a.npz", x=numbers(N, 4), y=np.arange(N) % 2 * 2,
                                                  y_names=np.array(["u", "v", "w"])), {}),
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
    "pictures, tiny": (lambda folder: pictures(folder, pixels=grey(N, 3, 3, 3)), {}),
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
