"""Files of features: every layout says the same, and what does not fit is one sentence."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffrep import data
from diffrep.data import feature_files
from diffrep.measures import probe
from diffrep.measures.probe import Probing, probe_file
from diffrep.probes.linear import linear, regression
from diffrep.probes.protocols import Protocol
from runs_at_hand import diffrep, one_sentence, run_of
from samples import parts_of

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 200)
X = (np.eye(3)[Y] * 2 + RNG.normal(size=(200, 3))).astype(np.float32)
SPLIT = np.array(["train"] * 120 + ["val"] * 30 + ["test"] * 50)
GIVEN = [(X[:120], Y[:120]), (X[120:150], Y[120:150]), (X[150:], Y[150:])]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_parquet(name: str, **columns) -> None:
    vectors = {key: pa.array(list(v)) if np.ndim(v) > 1 else pa.array(v) for key, v in columns.items()}
    pq.write_table(pa.table(vectors), name)


LAYOUTS = {
    "words": lambda: np.savez("f.npz", features=X, labels=Y, split=SPLIT),
    "x and y": lambda: np.savez("f.npz", x=X, y=Y, split=SPLIT),
    "label words": lambda: np.savez("f.npz", codes=X, label=np.array(list("abc"))[Y], split=SPLIT),
    "train_features": lambda: np.savez(
        "f.npz",
        **{f"{part}_features": X[part == SPLIT] for part in ("train", "val", "test")},
        **{f"{part}_labels": Y[part == SPLIT] for part in ("train", "val", "test")},
    ),
    "x_train": lambda: np.savez(
        "f.npz",
        **{f"x_{part}": X[part == SPLIT] for part in ("train", "val", "test")},
        **{f"y_{part}": Y[part == SPLIT] for part in ("train", "val", "test")},
    ),
    "parquet": lambda: write_parquet("f.parquet", code=X, label=Y, split=SPLIT, id=SPLIT),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_probed_on_its_own_splits(layout):
    """However it is written down, it is the protocol on the three splits that the file gives."""
    LAYOUTS[layout]()
    found = probe_file(next(Path().glob("f.*")), Probing(names=["linear"]))
    assert found["scores"]["f"]["linear"] == {**linear(*GIVEN), "overlap": 0}
    assert found["most_frequent"] == (Y[150:] == np.bincount(Y[:120]).argmax()).mean()


def test_a_file_without_splits_is_cut_as_data_is(monkeypatch):
    """The rows of each split are those that `diffrep.data.load` gives for that seed; another seed cuts anew."""
    np.savez("f.npz", features=X, labels=Y)
    np.savez("d.npz", x=X, y=Y, ids=np.arange(200))
    met: list = []
    spy = Protocol(lambda *parts, tell: met.append(parts) or {"accuracy": 1.0, "se": 0.0}, {"protocol": "spy-1"})
    monkeypatch.setattr(probe, "protocols", lambda *_: {"spy": spy})
    for seed in (0, 3):
        probe_file("f.npz", Probing(seed=seed))
        for (x, y), part in zip(met.pop(), parts_of(data.load("d.npz", seed=seed)), strict=True):
            rows = [int(row) for row in part.ids]
            assert np.array_equal(x, X[rows]) and np.array_equal(y, Y[rows])


def test_missing_splits_are_cut_from_train():
    """A file with train and test alone: the test split is the file's, validation is a share of train."""
    np.savez("f.npz", train_x=X[:150], train_y=Y[:150], test_x=X[150:], test_y=Y[150:])
    assert probe_file("f.npz")["examples"] == {"train": 135, "valid": 15, "test": 50}


def test_most_training_examples_are_spread():
    """A file in the order of its classes keeps all of them under a cap; validation and test stay whole."""
    order = np.argsort(Y[:120], kind="stable")
    np.savez(
        "f.npz", features=np.append(X[:120][order], X[120:], 0), labels=np.append(Y[:120][order], Y[120:]), split=SPLIT
    )
    found = probe_file("f.npz", Probing(most=12))
    assert found["examples"] == {"train": 12, "valid": 30, "test": 50} and found["classes"] == 3
    assert found["scores"]["f"]["linear"]["train_examples"] == 12


def test_labels_beside_the_file():
    """A .npy of labels, a column of another name; numbers that are not whole are regressed on."""
    np.save("x.npy", X)
    np.save("labels.npy", Y)
    assert probe_file("x.npy", Probing(labels="labels.npy", names=["knn"]))["labels"] == "labels.npy"
    size = X @ np.array([1, 2, 3.0])
    np.savez("f.npz", features=X, labels=Y, size=size, split=SPLIT)
    found = probe_file("f.npz", Probing(labels="size"))
    parts = [(X[rows], size[rows]) for rows in (slice(120), slice(120, 150), slice(150, 200))]
    assert found["classes"] is None and found["scores"]["f"]["regression"] == {**regression(*parts), "overlap": 0}


def test_codes_that_encode_wrote_are_read(tmp_path):
    """The file of `diffrep encode` with its label column; t picks the column of that time."""
    assert diffrep("encode", run_of("tdrl"), "digits", "-o", "c.parquet", "--t-grid", 2) == 0
    read = [feature_files.read(Path("c.parquet"), t=t).x for t in (0.25, 0.75)]
    assert read[0].shape == (1797, 32) and not np.allclose(read[0], read[1])
    assert probe_file("c.parquet", Probing(names=["linear"], t=0.25))["classes"] == 10


def test_copies_in_the_test_split_are_counted():
    """Rows that are byte for byte a training example's."""
    np.savez(
        "f.npz", features=np.concatenate([X, X[:4]]), labels=np.append(Y, Y[:4]), split=np.append(SPLIT, ["test"] * 4)
    )
    found = probe_file("f.npz", Probing(names=["knn"]))
    assert found["overlap"] == 4 and found["scores"]["f"]["knn"]["overlap"] == 4 and "4 of the 54" in found["warning"]


MISTAKES = {
    "no.npz": (dict(a=X), (), "expected features named"),
    "bare.npz": (dict(features=X), (), "--labels"),
    "short.npz": (dict(features=X, labels=Y[:9]), (), "200 rows of features and 9 labels"),
    "nan.npz": (dict(features=X * np.nan, labels=Y), (), "finite"),
    "flat.npz": (dict(features=X[:, 0], labels=Y), (), "expected finite numbers (N, d)"),
    "words.npz": (dict(features=X, labels=Y, split=np.array(["other"] * 200)), (), "the split 'other'"),
    "column.npz": (dict(features=X, labels=Y, size=Y), ("--labels", "sise"), "Did you mean 'size'"),
    "file.npz": (dict(features=X), ("--labels", "none.npy"), "none.npy"),
    "t.npz": (dict(features=X, labels=Y), ("--t", "0.5"), "--t picks a column"),
    "none.npz": (dict(features=X, labels=Y * 0 - 1), (), "holds no label"),
    "one.npz": (dict(features=X, labels=Y * 0), (), "two classes"),
    "uneven.npz": (dict(train_x=X, train_y=Y, test_x=X, test_y=Y[:5]), (), "in its test split"),
    "sizes.npz": (dict(train_x=X, train_y=Y, test_x=X[:, :2], test_y=Y), (), "different shapes"),
    "few.npz": (dict(features=X[:2], labels=Y[:2]), (), "expected at least 3"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence(name, capsys):
    """Named, with what to do, exit code 2."""
    arrays, words, said = MISTAKES[name]
    np.savez(name, **arrays)
    assert diffrep("probe", name, *words) == 2
    assert said in one_sentence(capsys)


def test_broken_files_are_one_sentence(capsys):
    """Cut short, of objects that would have to be unpickled, without the column of a code."""
    np.savez("f.npz", features=X, labels=Y)
    Path("cut.npz").write_bytes(Path("f.npz").read_bytes()[:700])
    np.savez("objects.npz", features=np.array([{}, {}], object))
    write_parquet("plain.parquet", label=Y)
    for name, said in (("cut.npz", "cannot be read"), ("objects.npz", "cannot be read"), ("plain.parquet", "no codes")):
        assert diffrep("probe", name) == 2
        assert said in one_sentence(capsys)


def test_a_file_of_features_is_printed(capsys):
    """The same numbers in the table and as JSON; nothing is written beside the file."""
    np.savez("f.npz", features=X, labels=Y, split=SPLIT)
    before = sorted(Path().iterdir())
    assert diffrep("probe", "f.npz", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert diffrep("probe", "f.npz") == 0
    assert f"{found['scores']['f']['linear']['accuracy']:.3f}" in capsys.readouterr().out
    assert sorted(Path().iterdir()) == before


def test_whole_numbers_that_hardly_repeat_are_classes_with_a_sentence(tmp_path):
    """Where a protocol of classes is asked for; without one they are regressed on."""
    np.savez("f.npz", features=X, labels=np.arange(200) // 2 * 3)
    assert probe_file("f.npz")["classes"] is None
    asked = probe_file("f.npz", Probing(names=["linear"]))
    assert any("--protocols regression" in note for note in asked["notes"])
    np.savez("g.npz", features=X, labels=Y)
    assert not probe_file("g.npz", Probing(names=["linear"]))["notes"]
