"""Whatever a reader guesses, `diffrep data` prints with the setting that says otherwise: a walk over all readers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffrep import config
from diffrep.data import Reading
from diffrep.data.reading import SETTINGS
from runs_at_hand import diffrep

RNG = np.random.default_rng(0)
EVERY_THIRD = np.arange(12) % 3
GREY = RNG.integers(0, 256, (12, 6, 7), dtype=np.uint8)


def _frame() -> pd.DataFrame:
    words = np.array(["red", "blue"])
    return pd.DataFrame(RNG.normal(size=(12, 3)), columns=list("abc")).assign(
        colour=words[np.arange(12) % 2], city=[f"c{i}" for i in range(12)], Class=np.arange(12) % 2 * 2 - 1
    )


def _pictures(folder: Path, *places: str) -> Path:
    for i, pixels in enumerate(GREY):
        path = folder / places[i % len(places)] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def _metadata(folder: Path, write) -> Path:
    _pictures(folder, ".")
    write(pd.DataFrame({"file_name": [f"{i}.png" for i in range(12)], "kind": list("ab") * 6, "age": np.arange(12.0)}))
    return folder


def _lines(frame: pd.DataFrame, path: Path) -> None:
    frame.to_json(path, orient="records", lines=True)


def _parquet(path: Path) -> Path:
    content = [{"bytes": (path.parent / "p" / f"{i}.png").read_bytes(), "path": None} for i in range(12)]
    pq.write_table(pa.table({"img": content, "mask": content, "target": np.arange(12) % 3}), path)
    return path


def _configs(folder: Path) -> Path:
    for name in ("default", "tiny"):
        for split in ("train", "test"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            pq.write_table(
                pa.table({"a": RNG.normal(size=6), "b": RNG.normal(size=6)}), folder / name / f"{split}.parquet"
            )
    return folder


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def zipped(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def written(path: Path, frame: pd.DataFrame, **how) -> Path:
    frame.to_csv(path, **how)
    return path


SOURCES = {
    "npy of levels": lambda d: saved(d / "x.npy", GREY),
    "npy of floats": lambda d: saved(d / "x.npy", RNG.random((9, 4, 5))),
    "npy of 12 bits": lambda d: saved(d / "x.npy", RNG.integers(0, 4096, (9, 5, 6)).astype(np.uint16)),
    "npy of 0 and 1": lambda d: saved(d / "x.npy", RNG.integers(0, 2, (9, 5, 6))),
    "npy of counts": lambda d: saved(d / "x.npy", RNG.poisson(RNG.gamma(0.2, 20, (60, 50)))),
    "npy of volumes": lambda d: saved(d / "x.npy", RNG.random((9, 5, 5, 5))),
    "npz": lambda d: zipped(d / "x.npz", x=GREY, y=np.arange(12) % 3 - 1, name=np.arange(12), size=RNG.random(12)),
    "npz of splits": lambda d: zipped(d / "x.npz", x_train=GREY, y_train=EVERY_THIRD, x_test=GREY, y_test=EVERY_THIRD),
    "npz with a split": lambda d: zipped(d / "x.npz", images=GREY, split=np.array(["train", "val", "test"] * 4)),
    "csv": lambda d: written(d / "t.csv", _frame(), index=False),
    "csv with an index": lambda d: written(d / "t.csv", _frame()),
    "csv of semicolons": lambda d: written(d / "t.csv", _frame(), sep=";", decimal=",", index=False),
    "csv without a header": lambda d: written(d / "t.csv", _frame()[["a", "b"]], header=False, index=False),
    "csv of a target": lambda d: written(d / "t.csv", _frame().rename(columns={"c": "Target"}).drop(columns="Class")),
    "folder": lambda d: _pictures(d / "p", "."),
    "class folders": lambda d: _pictures(d / "p", "a", "b"),
    "split folders": lambda d: _pictures(d / "p", "seg_train/a", "seg_test/a", "seg_train/b"),
    "metadata.csv": lambda d: _metadata(d / "p", lambda t: t.to_csv(d / "p" / "metadata.csv", index=False)),
    "metadata.jsonl": lambda d: _metadata(d / "p", lambda t: _lines(t, d / "p" / "metadata.jsonl")),
    "labels.csv": lambda d: _metadata(d / "p", lambda t: t.to_csv(d / "p" / "labels.csv", index=False)),
    "parquet of pictures": lambda d: (_pictures(d / "p", "."), _parquet(d / "t.parquet"))[1],
    "parquet": lambda d: (_frame().to_parquet(d / "t.parquet"), d / "t.parquet")[1],
    "parquet of configurations": lambda d: _configs(d / "p"),
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_every_guess_is_printed(source, tmp_path, capsys):
    """Each guess of the recipe stands in what is printed, with a setting there is, in words and as JSON."""
    path = SOURCES[source](tmp_path)
    assert diffrep("data", path, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    reading = Reading.from_dict(facts["reading"])
    assert diffrep("data", path) == 0
    above, printed = capsys.readouterr().out.split("\n\n", 1)  # facts, and how they were read
    for guess in reading.guesses:
        lines = [line for line in printed.splitlines() if line.startswith(f" {guess.field.replace('_', ' ')} ")]
        assert len(lines) == 1 and f"guessed; {SETTINGS[guess.field]} says otherwise" in lines[0], guess
        assert not guess.doubt or f"? {guess.doubt}" in printed
    assert all(f"? {sentence}" in printed for sentence in facts["doubts"])
    assert not any(word in above for word in ("None", "True", "False", "{", "[", "'")), "words of Python"
    marked = [line for line in printed.splitlines() if "guessed; " in line]
    assert len(marked) == len(reading.guesses), "a field is marked as guessed that was not"


def test_every_setting_that_is_named_is_one():
    """What a printed line names can be set; and it decides, so that nothing of that field is guessed any more."""
    assert set(SETTINGS.values()) <= set(config.names())


@pytest.mark.parametrize(
    "source, change, field",
    [
        ("npy of volumes", "data.layout=nchw", "layout"),
        ("npy of 12 bits", "data.levels=4096", "levels"),
        ("npy of floats", "data.range=[0,1]", "range"),
        ("npy of counts", "data.counts=no", "counts"),
        ("npz", "data.unlabelled=none", "missing_label"),
        ("npz", "data.column=x", "picture"),
        ("csv", "data.label_column=colour", "label"),
        ("csv", 'data.columns=["a","b"]', "features"),
        ("csv", 'data.columns=["a","colour"]', "words"),
        ("csv without a header", "data.header=no", "header"),
        ("csv of semicolons", "data.delimiter=;", "delimiter"),
        ("npz with a split", "data.split_column=split", "split"),
        ("parquet of pictures", "data.column=img", "picture"),
        ("parquet of configurations", "data.config=tiny", "config"),
    ],
)
def test_what_is_set_is_not_guessed(source, change, field, tmp_path, capsys):
    """The setting that a line names takes the guess away."""
    path = SOURCES[source](tmp_path)
    for words, guessed in (((), True), (("--set", change), False)):
        assert diffrep("data", path, "--json", *words) == 0
        reading = json.loads(capsys.readouterr().out)["reading"]
        assert (field in [guess["field"] for guess in reading["guesses"]]) is guessed, reading["guesses"]
