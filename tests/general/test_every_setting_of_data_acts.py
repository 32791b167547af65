"""Oracle 2 for `data.*`: of a table, an array or pictures, each setting changes what is read or how it is cut."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffrep import config, runs
from diffrep.config import Settings, override
from diffrep.data import Reading, Splits
from diffrep.data.examples import DECIDES_X

RNG = np.random.default_rng(0)
# leaf -> what is read, the settings beside it, and the value that is tried
ROWS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "source": ("table", (), "array"),
    "valid": ("table", (), "0.3"),
    "test": ("table", (), "0.4"),
    "label_column": ("table", (), "c"),
    "unlabelled": ("table", ("data.label_column=c",), "2"),
    "columns": ("table", (), "a,b"),
    "drop": ("table", (), "a"),
    "covariate": ("table", ("data.columns=a,b",), "c"),
    "split_column": ("table", (), "part"),
    "counts": ("counts", (), "yes"),
    "header": ("bare", (), "yes"),
    "delimiter": ("odd", (), "|"),
    "layout": ("array", (), "nhwc"),
    "levels": ("array", (), "4096"),
    "range": ("array", (), "[0,300]"),
    "column": ("two", ("data.column=x",), "z"),
    "size": ("pictures", (), "3"),
}
ELSEWHERE = {"skip_bad", "config"}  # a file that cannot be read, and a hub: tests/data


def words(path: Path, rows: list[list[object]], between: str = ",") -> Path:
    path.write_text("\n".join(between.join(map(str, row)) for row in rows) + "\n")
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """One small data set of each kind, by name."""
    folder = tmp_path_factory.mktemp("data")
    numbers = RNG.normal(size=(60, 3)).round(3).tolist()
    parts = ["train"] * 40 + ["valid"] * 10 + ["test"] * 10
    rows = [[*row, i % 3, part] for i, (row, part) in enumerate(zip(numbers, parts, strict=True))]
    array = RNG.integers(0, 256, (60, 3, 4, 3), dtype=np.uint8)
    np.save(folder / "array.npy", array)
    np.savez(folder / "two.npz", x=array, z=array[:, ::-1].copy())
    for i, picture in enumerate(array[:12]):
        (folder / "pictures").mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / "pictures" / f"{i:02d}.png")
    return {
        "table": words(folder / "table.csv", [["a", "b", "d", "c", "part"], *rows]),
        "counts": words(folder / "counts.csv", [["a", "b", "d"], *RNG.integers(0, 1000, (60, 3)).tolist()]),
        "bare": words(folder / "bare.csv", numbers),
        "odd": words(folder / "odd.csv", [["a", "b|d"], *([f"{p}", f"{q}|{r}"] for p, q, r in numbers)]),
        "array": folder / "array.npy",
        "two": folder / "two.npz",
        "pictures": folder / "pictures",
    }


def content(splits: Splits) -> list[object]:
    """All that a model sees of the splits."""
    parts = (splits.train, splits.valid, splits.test)
    labels = [None if part.labels is None else part.labels.tolist() for part in parts]
    scale = None if splits.train.scaling is None else [v.tolist() for v in splits.train.scaling]
    some = splits.train.batch(splits.train.evenly(20))
    x, beside = some.x.tolist(), None if some.covariate is None else some.covariate.tolist()
    return [[part.fingerprint for part in parts], labels, splits.train.shape, splits.train.bins, scale, x, beside]


@pytest.mark.parametrize("leaf", ROWS)
def test_a_setting_of_data_acts(leaf, sources):
    """Another value changes shape, levels, scale, labels or the cut; a source that cannot be read so may say so."""
    kind, beside, value = ROWS[leaf]
    given = {"data.source": str(sources[kind])}
    told = [f"{name}={v}" for name, v in given.items()]
    changed = f"data.{leaf}={sources[value] if leaf == 'source' else value}"

    def read(*changes: str) -> list[object]:
        return content(runs.splits_of(override(Settings(), [*told, *beside, *changes])))

    assert read() == read() != read(changed)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("leaf", ROWS)
def test_what_changes_x_changes_the_content(leaf, lazy, sources, monkeypatch):
    """Kept codes and scores go by `content`; of a set that stays in its file, that is a hash of how it is read."""
    if lazy:
        for module in ("values", "albums"):
            monkeypatch.setattr(f"diffrep.data.{module}.SMALL", 0)
    kind, beside, value = ROWS[leaf]
    changed = f"data.{leaf}={sources[value] if leaf == 'source' else value}"
    told = [f"data.source={sources[kind]}", *beside]
    one, again, other = (runs.splits_of(override(Settings(), [*told, *more])).train for more in ((), (), (changed,)))
    x, new = (split.batch(torch.arange(len(split))).x for split in (one, other))
    assert one.content() == again.content()
    assert torch.equal(x, new) if one.content() == other.content() else x.shape != new.shape or not torch.equal(x, new)


def test_every_field_of_a_reading_decides_x_or_does_not():
    """A new field is put on one of the two lists; those below name things, or say where x was found, which the
    fingerprint of the examples holds."""
    names = {"source", "place", "label", "factors", "ids", "left_out", "classes", "missing_label", "columns", "notes"}
    found_at = {"header", "delimiter", "decimal", "config", "split", "picture", "drop", "shape", "applied", "guesses"}
    of_tables_in_memory = {"fills", "words"}  # their content is a hash of x itself
    beside_x = {"rate", "covariate", "covariates"}  # a recording of another rate is refused
    assert names | found_at | of_tables_in_memory | beside_x == {f.name for f in fields(Reading)} - set(DECIDES_X)


def test_every_leaf_of_data_has_a_row():
    leaves = {name.removeprefix("data.") for name in config.names() if name.startswith("data.")}
    assert set(ROWS) | ELSEWHERE == leaves
