"""The same examples have the same codes, to the last bit: alone, reordered, in a part, in another folder, by the
command line and by Python."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import diffrep
from runs_at_hand import SMALL
from runs_at_hand import diffrep as command

pytestmark = pytest.mark.slow

N = 70  # more than a network encodes at a time
RNG = np.random.default_rng(0)


def array(folder: Path, rows: np.ndarray) -> Path:
    """Floats in [-1, 1], of which a part is nonnegative: alone it looks as if in [0, 1]."""
    x = np.random.default_rng(1).uniform(-1, 1, (N, 6, 7)).astype(np.float32)
    x[::2] = np.abs(x[::2])
    np.save(folder / "x.npy", x[rows])
    return folder / "x.npy"


def pictures(folder: Path, rows: np.ndarray) -> Path:
    x = np.random.default_rng(2).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    for place, row in enumerate(rows):
        (folder / "ab"[row % 2]).mkdir(exist_ok=True)
        Image.fromarray(x[row]).save(folder / "ab"[row % 2] / f"{place:03d}-{row}.png")
    return folder


def table(folder: Path, rows: np.ndarray) -> Path:
    """Measurements, words, gaps, a label; columns in another order where the rows are."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(N, 5)), columns=list("abcde")).assign(
        colour=np.array(["red", "green", "blue"])[rng.integers(0, 3, N)], label=rng.integers(0, 2, N)
    )
    frame.loc[::7, "b"] = np.nan
    columns = list(frame) if len(rows) == N and (np.diff(rows) > 0).all() else list(frame)[::-1]
    frame.iloc[rows][columns].to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def counts(folder: Path, rows: np.ndarray) -> Path:
    rng = np.random.default_rng(4)
    np.savez(folder / "c.npz", counts=rng.poisson(rng.gamma(0.2, 20, (N, 50)))[rows])
    return folder / "c.npz"


def signals(folder: Path, rows: np.ndarray) -> Path:
    np.savez(folder / "s.npz", x=np.random.default_rng(5).uniform(-1, 1, (N, 2, 33)).astype(np.float32)[rows])
    return folder / "s.npz"


def codes(run: Path, source: Path, out: Path, rows: np.ndarray) -> np.ndarray:
    """By the command line, in the order of `rows`: pictures come in the order of their names, which end in the row."""
    assert command("encode", run, source, "-o", out) == 0
    content = pq.read_table(out)
    found = np.stack(content["code"].to_numpy())
    if "id" not in content.column_names:
        return found
    place = {int(Path(name).stem.split("-")[1]): k for k, name in enumerate(content["id"].to_pylist())}
    return found[[place[row] for row in rows]]


@pytest.mark.parametrize("write", [array, pictures, table, counts, signals])
def test_an_example_has_one_code(write, tmp_path):
    """Difference exactly 0, whatever stands beside the example, wherever it lies and whoever asks."""
    here = tmp_path / "here"
    here.mkdir()
    source = write(here, np.arange(N))
    run = tmp_path / "run"
    assert command("train", "--data", source, "--method", "vae-vdm", "--out", run, *SMALL) == 0
    whole = codes(run, source, tmp_path / "all.parquet", np.arange(N))
    every = {"alone": [9], "reordered": RNG.permutation(N), "a part": np.arange(0, N, 2), "others": np.arange(60, N)}
    for name, rows in every.items():
        folder = tmp_path / name
        folder.mkdir()
        other = write(folder, np.array(rows))
        found = codes(run, other, tmp_path / f"{name}.parquet", rows)
        assert np.array_equal(found, whole[rows]), f"{name}: off by {np.abs(found - whole[rows]).max()}"
        said = diffrep.load(run).encode(str(other)).mean.numpy()
        again = pq.read_table(tmp_path / f"{name}.parquet")["code"].to_numpy()
        assert np.array_equal(said, np.stack(again)), f"{name}: Python and the command line differ"
    shutil.move(run, tmp_path / "moved")
    os.utime(source)
    later = codes(tmp_path / "moved", source, tmp_path / "later.parquet", np.arange(N))
    assert np.array_equal(later, whole)


def test_a_raw_table_as_a_tensor_of_floats_is_doubted(tmp_path):
    """It is taken for x itself, so raw values far from 0 get a warning, and what the run itself gives gets none."""
    raw = RNG.normal(500, 3, (N, 4))
    np.save(tmp_path / "t.npy", raw)
    run = diffrep.train(tmp_path / "t.npy", tmp_path / "run", method="ae", budget="64ex")
    with pytest.warns(UserWarning, match="standardised: give raw values"):
        run.encode(torch.tensor(raw))
    x = run.splits().train.batch(torch.arange(9)).x
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(run.encode(x).mean, run.encode(raw[run.splits().train.rows[:9]]).mean)
