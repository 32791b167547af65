"""Whatever is handed over is read right, or refused in one sentence: layouts, types, ranges, names, labels."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffrep import data
from diffrep.errors import UserError
from runs_at_hand import diffrep

pytestmark = pytest.mark.slow

LAYOUTS = ("nhw", "nchw", "nhwc", "ncl", "nlc", "ndhw", "ncdhw", "ndhwc", "ndchw")
KINDS = ("uint8", "uint16", "int16", "int32", "int64", "uint32", "bool", "float16", "float32", "float64", ">f4")
RANGES = ((0, 1), (-1, 1), (0, 255), (0, 4095), (0, 65535), (-1000, 2000), (-1e-9, 1 + 1e-9), (3, 3), (0.2, 300.5))
NAMES = (
    "x",
    "y",
    "label",
    "labels",
    "Class",
    "X_train",
    "data",
    "image",
    "id",
    "split",
    "[/b]x",
    "band:a:b",
    "größe",
    "a",
)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LONG = settings(QUICK, max_examples=300)


def one_sentence(error: UserError) -> None:
    said = str(error)
    assert said and "\n" not in said and len(said) < 600 and "Traceback" not in said, said


@st.composite
def arrays(draw) -> tuple[np.ndarray, str]:
    """An array of 4 examples or more in one of the layouts, and the layout."""
    layout = draw(st.sampled_from(LAYOUTS))
    shape = [draw(st.integers(4, 9)), *(draw(st.sampled_from((1, 2, 3, 4, 5, 8, 13, 33))) for _ in layout[1:])]
    low, high = draw(st.sampled_from(RANGES))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = rng.uniform(low, high, shape)
    if draw(st.booleans()):
        values = np.rint(values)
    kind = np.dtype(draw(st.sampled_from(KINDS)))
    if kind.kind in "iu":
        values = values.clip(np.iinfo(kind).min, np.iinfo(kind).max)
    return np.asarray(values).astype(kind), layout


def check_array(given_: tuple[np.ndarray, str]) -> None:
    """With its layout said, x is the array, on its axes, stretched by what the recipe says; without, the same set of
    numbers in some order of axes. Or one sentence."""
    values, layout = given_
    order = [layout.index(letter) for letter in ("n", "c", *"dthwl") if letter in layout]
    moved = values.transpose(order).astype(np.float64)
    for how in ({"layout": layout}, {}):
        try:
            reading = data.load(values, **how).train.reading
        except UserError as error:
            one_sentence(error)
            continue
        whole = data.whole(values, reading=reading.for_other())
        x = whole.batch(torch.arange(len(whole))).x.double().numpy()
        expected = scaled(moved if "c" in layout else moved[:, None], reading)
        assert np.abs(x).max() <= 1 + 1e-5 and len(x) == len(values)
        if not how:
            x, expected = (np.sort(each.reshape(len(values), -1)) for each in (x, expected))
        np.testing.assert_allclose(x, expected, atol=2e-3 if values.dtype == np.float16 else 2e-6)


def scaled(values: np.ndarray, reading: data.Reading) -> np.ndarray:
    """By the recipe: -1 at the low end of its range and 1 at the high end, or the middle of the cell of a level."""
    low, high = reading.range
    share = (values - low) / (high - low)
    if not reading.levels:
        return 2 * share - 1
    return 2 * (np.rint(share * (reading.levels - 1)) + 0.5) / reading.levels - 1


@given(arrays())
@QUICK
def test_any_array_is_read_right_or_refused(given_):
    """25 arrays of nine layouts, eleven types and nine ranges."""
    check_array(given_)


@pytest.mark.long
@given(arrays())
@LONG
def test_many_arrays_are_read_right_or_refused(given_):
    check_array(given_)


LABELS = st.one_of(
    st.lists(st.sampled_from((0, 1, 2, -1)), min_size=8, max_size=8),
    st.lists(st.sampled_from(("a", "b", "", None)), min_size=8, max_size=8),
    st.lists(st.sampled_from((1, "a", None, 2.5)), min_size=8, max_size=8),
    st.lists(st.sampled_from((True, False)), min_size=8, max_size=8),
    st.lists(st.floats(allow_nan=True, width=32), min_size=8, max_size=8),
    st.lists(st.sampled_from((pd.NA, 1, 0)), min_size=8, max_size=8),
    st.lists(st.sampled_from(((1, 2), (3,), ())), min_size=8, max_size=8),
    st.just(list(pd.date_range("2020", periods=8))),
    st.just([b"a"] * 8),
    st.just([{"a": 1}] * 8),
)


def check_labels(labels: list) -> None:
    """As the second of a pair, in a frame, and in a dictionary: labels with names and -1 for none, or one sentence."""
    x = np.random.default_rng(0).random((8, 4, 5))
    table = pd.DataFrame(x[:, 0], columns=list("pqrst"))
    column = np.empty(8, object)
    column[:] = labels
    for source in (
        (x, labels),
        (x, pd.Series(column)),
        table.assign(label=pd.Series(column)),
        {"x": x, "label": labels},
    ):
        try:
            whole = data.whole(source)
        except UserError as error:
            one_sentence(error)
            continue
        assert len(whole) == 8
        if whole.labels is not None:
            names = whole.label_names or []
            assert whole.labels.min() >= -1 and whole.labels.max() < len(names)
            known = [label for label in labels if label is not None and label is not pd.NA and label == label]
            assert len({str(k) for k in known} | {""}) >= len(names)


@given(LABELS)
@QUICK
def test_any_labels_are_read_or_refused(labels):
    """Numbers, words, both, none, truth values, lists, dates, bytes, dictionaries."""
    check_labels(labels)


@pytest.mark.long
@given(LABELS)
@LONG
def test_many_labels_are_read_or_refused(labels):
    check_labels(labels)


@st.composite
def files(draw) -> tuple[str, dict[str, np.ndarray]]:
    """An .npz, .csv or .parquet file with columns of odd names and contents."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    content = {
        "numbers": lambda: rng.normal(size=12),
        "whole": lambda: rng.integers(-2, 5, 12),
        "words": lambda: np.array(["u", "[/b]", "w:a:"])[rng.integers(0, 3, 12)],
        "gaps": lambda: np.where(rng.random(12) < 0.3, np.nan, rng.random(12)),
        "infinite": lambda: np.full(12, np.inf),
        "splits": lambda: np.array(["train", "val", "Test"])[np.arange(12) % 3],
    }
    suffix = draw(st.sampled_from((".npz", ".csv", ".parquet")))
    columns = {name: content[draw(st.sampled_from(sorted(content)))]() for name in names}
    if suffix == ".npz" and draw(st.booleans()):
        columns["images"] = rng.integers(0, 256, (12, 4, 5)).astype(np.uint8)
    return suffix, columns


def check_file(given_: tuple[str, dict[str, np.ndarray]], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`diffrep data` and `diffrep probe` end with 0, or with 2 and one line; what JSON they print is JSON."""
    suffix, columns = given_
    path = folder / f"f{suffix}"
    if suffix == ".npz":
        np.savez(path, **columns)
    elif suffix == ".csv":
        pd.DataFrame(columns).to_csv(path, index=False)
    else:
        pd.DataFrame(columns).to_parquet(path)
    for words in (("data", path), ("data", path, "--json"), ("probe", path, "--json", "--protocols", "knn")):
        capsys.readouterr()
        code = diffrep(*words)
        out, err = capsys.readouterr()
        assert code in (0, 2), (words, code)
        if code == 2:
            assert err.startswith("diffrep: ") and err.count("\n") == 1 and not out, err
        elif "--json" in words:
            json.loads(out, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


@given(files())
@QUICK
def test_any_file_is_read_or_refused_in_one_line(tmp_path, capsys, given_):
    check_file(given_, tmp_path, capsys)


@pytest.mark.long
@given(files())
@LONG
def test_many_files_are_read_or_refused_in_one_line(tmp_path, capsys, given_):
    check_file(given_, tmp_path, capsys)
