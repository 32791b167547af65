"""Folders of pictures: modes, lazy reading, splits and labels of their own, broken files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffrep.data import load
from diffrep.errors import UserError
from samples import COLOUR, GREY, RNG, centres, parts_of, png, same_set, whole, write_folder


def test_modes_of_pictures(tmp_path):
    """Each mode is converted without loss: checked against the arrays that were written."""
    alpha = np.concatenate([COLOUR, GREY[..., None]], -1)
    deep = GREY.astype(np.uint16) * 200
    for name, pictures, bins, truth in [
        ("grey", GREY, 256, GREY[:, None]),
        ("alpha", alpha, 256, np.moveaxis(alpha, -1, 1)),
        ("deep", deep, 65536, deep[:, None]),
        ("bits", GREY > 99, 256, ((GREY > 99) * 255)[:, None]),
    ]:
        splits = load(write_folder(tmp_path / name, pictures))
        assert splits.train.bins == bins
        assert same_set(whole(splits), centres(truth, bins))


def test_palettes_and_grey_beside_colour(tmp_path):
    """A palette becomes its colours; a grey picture among RGB ones has three equal channels."""
    write_folder(tmp_path, COLOUR[:9] // 128 * 255)
    Image.fromarray(COLOUR[0] // 128 * 255).quantize(8).save(tmp_path / "0000.png")
    Image.fromarray(GREY[0]).save(tmp_path / "zzzz.png")
    splits = load(tmp_path)
    truth = np.concatenate([np.moveaxis(COLOUR[:9] // 128 * 255, -1, 1), GREY[:1, None].repeat(3, 1)])
    assert same_set(whole(splits), centres(truth, 256))


def test_floating_point_pictures(tmp_path):
    """A float TIFF follows the rule of float arrays."""
    values = RNG.random((5, 4, 6)).astype(np.float32)
    for i, picture in enumerate(values):
        Image.fromarray(picture).save(tmp_path / f"{i}.tif")
    assert torch.equal(whole(load(tmp_path)), whole(load(values)))


@pytest.mark.parametrize("skip_bad", [False, True])
def test_lazy_reading_equals_memory(tmp_path, monkeypatch, skip_bad):
    """Where the values live changes neither x, nor the labels, nor the fingerprint, nor the histogram."""
    write_folder(tmp_path / "folder", COLOUR, [f"class{i % 2}" for i in range(12)])
    np.save(tmp_path / "a.npy", GREY)
    np.save(tmp_path / "f.npy", GREY / 255)
    sources = [tmp_path / "folder", tmp_path / "a.npy", tmp_path / "f.npy"]
    held = [load(source) for source in sources]
    monkeypatch.setattr("diffrep.data.values.SMALL", 0)
    monkeypatch.setattr("diffrep.data.albums.SMALL", 0)
    for source, splits in zip(sources, held, strict=True):
        lazy = load(source, skip_bad=skip_bad)
        assert lazy.train.lazy and not splits.train.lazy
        assert torch.equal(whole(lazy), whole(splits))
        assert [p.fingerprint for p in parts_of(lazy)] == [p.fingerprint for p in parts_of(splits)]
        assert (
            lazy.train.subset(torch.tensor([3, 1]))
            .batch(torch.tensor([1]))
            .x.equal(splits.train.batch(torch.tensor([1])).x)
        )
        if splits.train.bins:
            assert torch.equal(lazy.train.histogram(), splits.train.histogram())


def test_own_splits_and_metadata_of_a_folder(tmp_path):
    """train/ and test/ are kept, valid is cut from train; a row of metadata.csv follows its file."""
    write_folder(tmp_path / "train", COLOUR[:8], ["b", "a"] * 4)
    write_folder(tmp_path / "test", COLOUR[8:], ["a", "b"] * 2)
    splits = load(tmp_path)
    assert splits.train.label_names == ["a", "b"]
    assert all(i.startswith("train/") for i in splits.train.ids + splits.valid.ids) and len(splits.test) == 4
    assert all(
        name.split("/")[1] == "ab"[label] for name, label in zip(splits.train.ids, splits.train.labels, strict=True)
    )

    rows = [f"{'ba'[i % 2]}/{i:04d}.png,{'dog' if i < 5 else 'cat'},{i / 2},{'x' * i}" for i in range(8)]
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label,angle,word\n" + "\n".join(rows[:-1]))
    splits = load(tmp_path)
    assert splits.train.label_names == ["cat", "dog"]
    for part in (splits.train, splits.valid):
        for name, label, angle, word in zip(
            part.ids, part.labels, part.factors["angle"], part.factors["word"], strict=True
        ):
            i = int(name[-8:-4])
            if i == 7:
                assert label == -1 and np.isnan(angle) and word == ""
            else:
                assert part.label_names[label] == ("dog" if i < 5 else "cat") and angle == i / 2 and word == "x" * i
    assert load(tmp_path, label_column="word").train.label_names[0] == "x"


def test_valid_folder_is_kept(tmp_path):
    """A source that has all three splits is not cut at all."""
    for split, rows in (("train", slice(0, 5)), ("val", slice(5, 9)), ("test", slice(9, 12))):
        write_folder(tmp_path / split, GREY[rows])
    assert torch.equal(whole(load(tmp_path)), centres(GREY, 256)[:, None])


@pytest.mark.parametrize("content", [b"", b"no picture", "cut"])
@pytest.mark.parametrize("lazy", [False, True])
def test_pictures_that_cannot_be_read(tmp_path, monkeypatch, content, lazy):
    """The file is named; skip_bad goes on, counts it and keeps labels with their pictures."""
    write_folder(tmp_path, COLOUR, ["a", "b"] * 6)
    broken = tmp_path / "b" / "0003.png"
    broken.write_bytes(broken.read_bytes()[:70] if content == "cut" else content)
    if lazy:
        monkeypatch.setattr("diffrep.data.albums.SMALL", 0)
    with pytest.raises(UserError, match=r"0003\.png cannot be read .*skip-bad"):
        whole(load(tmp_path))
    splits = load(tmp_path, skip_bad=True)
    assert splits.skipped == 1 and sum(len(p) for p in parts_of(splits)) == 11
    for part in parts_of(splits):
        assert all("ab"[k] == name[0] for name, k in zip(part.ids, part.labels, strict=True))


def test_broken_picture_inside_parquet(tmp_path):
    """A row of a Parquet file is named by its file and path, and can be skipped."""
    rows = [{"bytes": png(Image.fromarray(p)), "path": f"{i}.png"} for i, p in enumerate(GREY)]
    rows[5] = {"bytes": rows[5]["bytes"][:60], "path": "5.png"}
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: 5\.png cannot be read"):
        load(tmp_path)
    splits = load(tmp_path, skip_bad=True)
    assert splits.skipped == 1 and same_set(whole(splits), centres(np.delete(GREY, 5, 0), 256)[:, None])


def test_pictures_that_do_not_go_together(tmp_path):
    """Two sizes or two depths: both files are named."""
    write_folder(tmp_path, GREY[:4])
    Image.fromarray(GREY[0, :5]).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"0000\.png is 5x6 and .*x\.png is 5x5 .*resize"):
        load(tmp_path)
    Image.fromarray(GREY[0].astype(np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"0000\.png is 8-bit and .*x\.png is 16-bit"):
        load(tmp_path)
    (tmp_path / "x.png").unlink()
    (tmp_path / "metadata.csv").write_text("file_name,label\n0000.png,1\ngone.png,2\n")
    with pytest.raises(UserError, match=r"gone\.png is named in metadata\.csv"):
        load(tmp_path)
    assert load(tmp_path, skip_bad=True).skipped == 1
    with pytest.raises(UserError, match="Did you mean 'label'"):
        load(tmp_path, label_column="labl", skip_bad=True)


def test_pictures_outside_of_the_splits(tmp_path):
    """A picture beside train/ belongs to no split: it is named and never dropped in silence."""
    write_folder(tmp_path, GREY[:4], ["train", "train", "train", "other"])
    with pytest.raises(UserError, match="lies outside of train"):
        load(tmp_path)
