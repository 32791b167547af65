"""The way back: what a reader did to examples is undone, and samples of a table are a table of its columns."""

import csv
import datetime
import io
import json
import subprocess  # noqa: F401  (slow: it trains)

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffrep import data, runs
from diffrep.files import unsealed
from diffrep.runs.restored import restored
from runs_at_hand import diffrep as command
from runs_at_hand import one_sentence
from tiny import base, train

SHAPES = {"nhwc": (6, 5, 3), "nchw": (3, 6, 5), "nhw": (6, 5), "nlc": (40, 2), "ndhw": (3, 4, 5)}


@pytest.mark.parametrize("layout", SHAPES)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "range"])
def test_an_array_comes_back_as_it_was(layout, kind):
    """restored(read(x)) = x: axes, scale and type, to the last level."""
    x = np.random.default_rng(0).random((8, *SHAPES[layout]))
    x = x.astype(np.float32) if kind == "float32" else 90 * x - 30 if kind == "range" else (250 * x).astype(kind)
    how = {"range": (-30.0, 60.0)} if kind == "range" else {}
    splits, every = data.load(x, layout=layout, **how), data.whole(x, layout=layout, **how)
    back = restored(runs.DataCard.of(splits), every.batch(torch.arange(8)).x)
    assert back.dtype == (kind if kind.startswith("uint") else np.float32)
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-4)


def test_what_lies_between_grey_levels_falls_into_its_cell():
    """A model's numbers are not on the grid: level k is the whole cell from 2 k / 256 - 1 to 2 (k + 1) / 256 - 1."""
    card = runs.DataCard.of(data.load((np.arange(8 * 256) % 256).astype(np.uint8).reshape(8, 16, 16), layout="nhw"))
    level = torch.arange(256).reshape(1, 1, 16, 16)
    for place in (0.01, 0.99):
        back = restored(card, 2 * (level + place) / 256 - 1)
        assert np.array_equal(back[0], level[0, 0].numpy())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Numbers, whole numbers, truth values, days, times and words; gaps in three of them."""
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2020-01-31") + pd.to_timedelta(rng.integers(0, 900, 60), unit="D")
    frame = pd.DataFrame({"day": days.strftime("%Y-%m-%d"), "price": rng.normal(1e5, 10, 60).round(2)})
    frame["colour"] = rng.choice(["red", "green", "blue"], 60)
    frame["rooms"] = rng.integers(1, 9, 60)
    frame["seen"] = (days + pd.to_timedelta(rng.integers(0, 86400, 60), unit="s")).strftime("%Y-%m-%d %H:%M:%S")
    frame["sold"] = rng.choice(["true", "false"], 60)
    for column, every in (("day", 5), ("price", 7), ("colour", 9)):
        frame.loc[::every, column] = None
    path = tmp_path_factory.mktemp("mixed") / "homes.csv"
    frame.to_csv(path, index=False)
    return path


def test_each_column_of_words_has_its_own(tmp_path):
    """Two columns of words side by side, of two and of three of them, one with gaps."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(size=60), "colour": rng.choice(["red", "green"], 60)})
    frame["shape"] = rng.choice(["cube", "ball", "rod"], 60)
    frame.loc[::9, "shape"] = None
    frame.to_csv(tmp_path / "things.csv", index=False)
    card = runs.DataCard.of(data.load(tmp_path / "things.csv", columns=["all"], label_column=""))
    every = data.whole(tmp_path / "things.csv", reading=card.how())
    table = restored(card, every.batch(torch.arange(60)).x)
    for name in ("colour", "shape"):
        assert table[name].to_pylist() == [None if word is None or word != word else word for word in frame[name]]


HOW = ("data.columns=all", "data.label_column=")


def test_a_table_comes_back_as_it_was(mixed):
    """Every column in its place, with its type: cells as the file has them, times to rounding."""
    run = train("vae-vdm", *HOW, data=mixed)
    every = data.whole(str(mixed), reading=run.card.how())
    table = restored(run.card, every.batch(torch.arange(len(every))).x)
    text = io.BytesIO()
    import pyarrow.csv

    pyarrow.csv.write_csv(table, text)
    came = [*csv.DictReader(io.StringIO(text.getvalue().decode()))]
    for row, was in zip(came, csv.DictReader(mixed.open()), strict=True):
        assert [*row] == [*was]
        seen, there = (datetime.datetime.fromisoformat(one["seen"]) for one in (row, was))
        assert abs((seen - there).total_seconds()) <= 5
        for name in ("day", "colour", "rooms", "sold"):
            assert row[name] == was[name], name
        assert row["price"] == was["price"] == "" or float(row["price"]) == pytest.approx(float(was["price"]), abs=0.01)


def test_a_mixed_csv_is_trained_encoded_and_sampled_back(mixed, tmp_path, capsys):
    """Text, dates and gaps go in; a CSV of the same columns comes out, in words and days of the file."""
    run = tmp_path / "run"
    small = ("--budget", "640ex", "--set", "train.batch=16", "--set", "decoder.width=8", "--set", "encoder.width=8")
    how = [word for setting in HOW for word in ("--set", setting)]
    assert command("train", "--data", mixed, "--out", run, *small, *how) == 0
    assert command("encode", run, mixed, "-o", tmp_path / "codes.parquet") == 0
    assert pq.read_table(tmp_path / "codes.parquet").num_rows == 60
    assert command("sample", run, "-n", 50, "--steps", 10, "-o", tmp_path / "new.csv") == 0
    came, was = pd.read_csv(tmp_path / "new.csv"), pd.read_csv(mixed)
    assert [*came.columns] == [*was.columns] and len(came) == 50
    assert set(came["colour"].dropna()) <= {"red", "green", "blue"}
    days = [datetime.date.fromisoformat(day) for day in came["day"].dropna()]
    assert all(datetime.date(2015, 1, 1) < day < datetime.date(2028, 1, 1) for day in days)
    assert (came["rooms"] == came["rooms"].round()).all() and came["sold"].isin([True, False]).all()
    assert abs(came["price"].mean() - 1e5) < 100
    assert command("reconstruct", run, mixed, "-n", 4, "--steps", 5, "-o", tmp_path / "again.parquet") == 0
    assert pq.read_table(tmp_path / "again.parquet").column_names == [*was.columns]
    capsys.readouterr()
    assert command("sample", run, "-n", 2, "-o", tmp_path / "new.png") == 2
    assert "is a picture, and the data is a table: name a .csv, .parquet, .npy or .npz file" in one_sentence(capsys)


def test_arrays_and_pictures_by_the_suffix(tmp_path):
    """The same samples as an array, beside what they are of, and as a folder of PNGs."""
    run, few = base("vae-vdm").directory, ("--steps", 3)
    assert command("sample", run, "-n", 3, *few, "-o", tmp_path / "x.npy") == 0
    x = np.load(tmp_path / "x.npy")
    assert (x.shape, x.dtype) == ((3, 4, 4), np.uint8) and set(np.unique(x)) <= {0, 1}
    assert command("sample", run, "-n", 3, *few, "-o", tmp_path / "folder") == 0
    pictures = [np.asarray(Image.open(file)) for file in sorted((tmp_path / "folder").iterdir())]
    assert np.array_equal(np.stack(pictures), 255 * x)
    source = runs.load(run).settings.data.source
    assert command("reconstruct", run, source, "-n", 4, *few, "-o", tmp_path / "pairs.npz") == 0
    pairs = np.load(tmp_path / "pairs.npz")
    assert pairs["reconstruction"].shape == pairs["original"].shape == (4, 4, 4)
    assert command("interpolate", run, 0, 1, "--points", 3, *few, "-o", tmp_path / "way.npy") == 0
    assert np.load(tmp_path / "way.npy").shape == (5, 4, 4)


def test_a_place_that_does_not_fit_the_data_is_one_sentence(tmp_path, capsys):
    """A table of pictures, a folder that is not empty, a suffix that nobody knows; nothing is written."""
    run = base("vae-vdm").directory
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "keep.txt").write_text("keep")
    for place, said in (("x.csv", "no table"), ("full", "not empty"), ("x.gif", "no place for the output")):
        capsys.readouterr()
        assert command("sample", run, "-n", 2, "--steps", 2, "-o", tmp_path / place) == 2
        assert said in one_sentence(capsys)
    assert [file.name for file in tmp_path.rglob("*")] == ["full", "keep.txt"]


def test_a_folder_for_rows_of_a_table_names_the_files_of_a_table(mixed, tmp_path, capsys):
    """A row is no picture; the sentence offers the table first."""
    run = train("vae-vdm", *HOW, data=mixed)
    capsys.readouterr()
    assert command("sample", run.directory, "-n", 2, "--steps", 2, "-o", tmp_path / "folder") == 2
    assert "name a .csv, .parquet, .npy or .npz file" in one_sentence(capsys)
    assert not (tmp_path / "folder").exists()


def test_older_runs_of_tables_have_columns_too(mixed, tmp_path):
    """A card that does not know what its columns held writes numbers as they are, features before words."""
    run = train("vae-vdm", *HOW, data=mixed)
    facts = unsealed(run.directory / "data.json")
    del facts["reading"]["columns"]
    (run.directory / "data.json").write_text(json.dumps(facts))
    table = restored(runs.load(run.directory).card, run.model.sample(2, steps=2))
    assert table.column_names == ["day", "price", "rooms", "seen", "sold", "colour"]
