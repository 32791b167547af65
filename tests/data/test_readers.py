"""Files and hubs: the same set by another route gives the same splits; what is broken is named."""

from __future__ import annotations

import sys
import types
from itertools import cycle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from diffrep.data import load
from diffrep.errors import UserError
from samples import COLOUR, GREY, RNG, centres, same_set, whole, write_parquet


def test_parquet_in_hub_layout(tmp_path):
    """Several files make one split; ClassLabel names are kept in their order; further splits are left out."""
    names = ["zebra", "ant"]
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", COLOUR[:4], [0, 1, 0, 1], names)
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", COLOUR[4:8], [1, 1, 0, -1], names)
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", COLOUR[8:11], [0, 1, 1], names)
    write_parquet(tmp_path / "data" / "extra-00000-of-00001.parquet", COLOUR[11:], [0], names)
    splits = load(tmp_path)
    assert splits.train.label_names == names
    assert torch.equal(splits.test.batch(torch.arange(3)).x, centres(np.moveaxis(COLOUR[8:11], -1, 1), 256))
    assert splits.test.labels.tolist() == [0, 1, 1] and splits.test.factors["weight"].tolist() == [0, 0.5, 1]
    assert same_set(whole(splits), centres(np.moveaxis(COLOUR[:11], -1, 1), 256))


def test_hub_data_set(tmp_path, monkeypatch):
    """What `datasets` hands over gives the same splits as its Parquet files do."""
    datasets = pytest.importorskip("datasets")
    for split, rows in (("train", slice(0, 8)), ("test", slice(8, 12))):
        write_parquet(
            tmp_path / f"{split}-00000-of-00001.parquet",
            COLOUR[rows],
            [0, 1] * ((rows.stop - rows.start) // 2),
            ["b", "a"],
        )
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["b", "a"]), weight=datasets.Value("float64")
    )
    given = {}
    for split in ("train", "test"):
        table = pq.read_table(tmp_path / f"{split}-00000-of-00001.parquet").replace_schema_metadata(None)
        given[split] = datasets.Dataset(table.cast(features.arrow_schema))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(given))
    hub, files = load("someone/pictures"), load(tmp_path)
    assert torch.equal(whole(hub), whole(files)) and hub.test.labels.tolist() == files.test.labels.tolist()
    assert hub.train.label_names == ["b", "a"] and hub.train.fingerprint == files.train.fingerprint


class Series:
    """Examples that are made one by one, of known length."""

    def __init__(self, x, y, says=None):
        self.items, self.says = list(zip(x, y, strict=True)), says or len(x)

    def __len__(self):
        return self.says

    def __iter__(self):
        return iter(self.items)


class SeriesOfTorch(Series, torch.utils.data.IterableDataset):
    """The same as a data set of torch, which knows no positions."""


@pytest.mark.parametrize("kind", [Series, SeriesOfTorch])
def test_a_series_of_known_length_is_read_as_its_array(kind):
    """One after the other, (x, label) each; one that gives another number than it says, and a loader, are refused."""
    x, y = np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype=np.uint8), np.arange(20) % 2
    one, two = load(kind(x, y)), load((x, y))
    assert torch.equal(whole(one), whole(two)) and torch.equal(one.test.labels, two.test.labels)
    with pytest.raises(UserError, match="says that it holds 30 examples and gave 20"):
        load(kind(x, y, says=30))
    endless = kind(x, y)
    endless.__class__ = type("Endless", (kind,), {"__iter__": lambda self: cycle(self.items)})
    with pytest.raises(UserError, match="says that it holds 20 examples and gave more"):
        load(endless)
    with pytest.raises(UserError, match="give its dataset"):
        load(torch.utils.data.DataLoader(list(zip(x, y, strict=True))))


def test_hub_that_cannot_be_reached(monkeypatch):
    """Without the package or the network there is one sentence, whatever the client raised."""

    def load_dataset(name):
        raise ConnectionError("no route\nto host")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(UserError, match=r"no file or folder 'someone/set'.*no route"):
        load("someone/set")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'diffrep\[hub\]'"):
        load("someone/set")


def test_npz_with_names_and_factors(tmp_path):
    """Other arrays of the right length come along; words for classes are sorted; splits may be given."""
    labels = np.array(["b", "c", "a"] * 4)
    np.savez(tmp_path / "a.npz", x=GREY, label=labels, angle=np.arange(12.0), other=np.arange(5))
    part = load(tmp_path / "a.npz").train
    assert part.label_names == ["a", "b", "c"] and set(part.factors) == {"angle"}
    assert [part.label_names[k] for k in part.labels] == [labels[int(i)] for i in part.factors["angle"]]
    np.savez(tmp_path / "b.npz", x_train=GREY[:9], y_train=np.arange(9) % 3, x_test=GREY[9:], y_test=[[0], [1], [2]])
    splits = load(tmp_path / "b.npz")
    assert torch.equal(splits.test.batch(torch.arange(3)).x, centres(GREY[9:], 256)[:, None])
    assert splits.test.labels.tolist() == [0, 1, 2]


def test_tables_from_files(tmp_path):
    """CSV and Parquet rows give what the same array gives; a few words have a number each, beside lists (an embedding)
    and where they are left out as features they are factors."""
    values = RNG.normal(size=(20, 3))
    kinds = ["left", "right"] * 10
    header = "name,a,b,c,label,side\n"
    rows = [f"row{i},{a!r},{b!r},{c!r},{i % 2},{kinds[i]}" for i, (a, b, c) in enumerate(values.tolist())]
    (tmp_path / "t.csv").write_text(header + "\n".join(rows))
    pq.write_table(pa.table({"code": list(values), "label": np.arange(20) % 2, "side": kinds}), tmp_path / "t.parquet")
    truth = whole(load((values, np.arange(20) % 2)))
    words = load(tmp_path / "t.csv")
    assert torch.equal(whole(words)[:, :3], truth) and words.train.reading.words == {"side": ("left", "right")}
    for file, columns in (("t.csv", ("a", "b", "c")), ("t.parquet", ())):
        splits = load(tmp_path / file, columns=columns)
        assert torch.equal(whole(splits), truth)
        assert [kinds[k] for k in splits.test.labels] == splits.test.factors["side"].tolist()
    assert all(i.startswith("row") for i in load(tmp_path / "t.csv").train.ids)
    assert load(tmp_path / "t.csv", label_column="side").train.label_names == ["left", "right"]


def test_bad_names(tmp_path):
    """A missing path is no hub name, and a slip of the pen is recognised."""
    for name, words in [
        (tmp_path / "nothing", "no file or folder"),
        ("photos", "no file or folder 'photos'"),
        ("digit", "Did you mean 'digits'"),
        (str(tmp_path), "holds no pictures"),
    ]:
        with pytest.raises(UserError, match=words):
            load(name)
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(UserError, match=r"a\.doc is a \.doc file"):
        load(tmp_path / "a.doc")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"a\.txt cannot be read as CSV"):
        load(tmp_path / "a.txt")
    with pytest.raises(UserError, match="shares"):
        load(GREY, valid=0.6, test=0.5)


def test_broken_files(tmp_path):
    """Each container that cannot be read, or holds nothing to learn from, is named. Nothing is ever unpickled."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing more")
    (tmp_path / "a.npz").write_bytes(b"PK nothing more")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "p.npy", np.array([{1: 2}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "l.npz", x=GREY, labels=np.arange(5))
    np.savez(tmp_path / "o.npz", first=np.zeros((5, 2)), second=np.zeros((5, 2)))
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), tmp_path / "t.parquet")
    pq.write_table(pa.table({"n": [1.0, float("inf"), 3.0]}), tmp_path / "n.parquet")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    for name, words in [
        ("a.parquet", "cannot be read as Parquet"),
        ("a.npz", "cannot be read"),
        ("a.npy", "cannot be read"),
        ("p.npy", "cannot be read"),
        ("o.npz", "holds first, second"),
        ("l.npz", "holds 12 examples and 5 labels"),
        ("t.parquet", "neither a column of pictures nor numeric"),
        ("n.parquet", "column 'n' .* infinite"),
        ("a.csv", "cannot be read as CSV"),
    ]:
        with pytest.raises(UserError, match=words) as error:
            load(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
