"""One callable for every engine: it is pickled, given batches, and says what `encode` says."""

import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps

from diffrep import runs
from diffrep.errors import UserError
from diffrep.runs import encode as embed
from diffrep.runs.batch_encoder import BatchEncoder
from diffrep.runs.inputs import examples_of
from diffrep.training.checkpoints import load_tensors, save_tensors
from runs_at_hand import SMALL, diffrep, run_of
from samples import COLOUR, GREY, write_folder


@pytest.fixture(scope="module")
def known():
    """Six test digits as they are given, and their codes by the model itself."""
    run = runs.load(run_of("vae-vdm"), "cpu")
    test = run.splits().test
    index = torch.arange(6)
    return test.store.raw(index)[:, 0].numpy(), run.model.encode(test.batch(index).x).mean.detach().numpy()


@pytest.mark.parametrize("form", ["columns", "arrays", "frame", "frames"])
def test_every_form_of_a_batch_comes_back_with_its_codes(form, known):
    """datasets and Ray hand over mappings of columns, Spark an iterator of frames; other columns stay."""
    pixels, codes = known
    encode = pickle.loads(pickle.dumps(BatchEncoder(run_of("vae-vdm"), column="x", device="cpu")))
    columns = {"x": list(pixels), "name": list("abcdef")}
    batch = {
        "columns": columns,
        "arrays": {"x": pixels, "name": np.array(list("abcdef"))},
        "frame": pd.DataFrame(columns),
        "frames": iter([pd.DataFrame(columns)]),
    }[form]
    said = next(encode(batch)) if form == "frames" else encode(batch)
    assert list(said["name"]) == list("abcdef")
    np.testing.assert_allclose(np.stack(list(said["code"])), codes, atol=1e-5)


def test_a_column_that_is_not_there_is_one_sentence():
    """The columns that are there are named."""
    with pytest.raises(UserError, match="no column 'image'"):
        BatchEncoder(run_of("vae-vdm"))({"pixels": []})


def test_an_encoded_picture_is_decoded():
    """Bytes as the hub stores them say what their pixels say."""
    pixels, file = np.arange(64, dtype=np.uint8).reshape(8, 8) // 4, io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    encode = BatchEncoder(run_of("vae-vdm"), device="cpu")
    (stored,) = encode({"image": [{"bytes": file.getvalue(), "path": None}]})["code"]
    (plain,) = encode({"image": [pixels]})["code"]
    np.testing.assert_array_equal(stored, plain)


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """A run on colour pictures that are resized and turned, and more such pictures: grey, CMYK, with a tag that turns
    them."""
    root = tmp_path_factory.mktemp("album")
    write_folder(root / "photos", COLOUR)
    sized = ("--set", "data.size=4")
    assert diffrep("train", "--data", root / "photos", "--method", "ae", "--out", root / "run", *SMALL, *sized) == 0
    write_folder(root / "more", COLOUR[:3])
    Image.fromarray(GREY[0]).save(root / "more" / "grey.png")
    Image.fromarray(COLOUR[4]).convert("CMYK").save(root / "more" / "print.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(COLOUR[5]).save(root / "more" / "turned.jpg", exif=turned)
    return root


def codes_of_encode(run: Path, source: Path, out: Path) -> list:
    """What `diffrep encode` writes, in the order of the names."""
    opened = runs.load(run, "cpu")
    return pq.read_table(embed.embed(opened.model, examples_of(opened, str(source)), out)).column("code").to_pylist()


@pytest.mark.parametrize("form", ["bytes", "records", "paths", "pillow"])
def test_a_batch_of_pictures_has_the_codes_of_encode(form, album, tmp_path):
    """Size, colours and turning are those of the run's reading: a picture has one code, however it is handed over."""
    paths = sorted((album / "more").iterdir())
    pictures = {
        "bytes": [path.read_bytes() for path in paths],
        "records": [{"bytes": None, "path": str(path)} for path in paths],
        "paths": [str(path) for path in paths],
        "pillow": [ImageOps.exif_transpose(Image.open(path)) for path in paths],  # as `datasets` hands them over
    }[form]
    codes = BatchEncoder(album / "run", device="cpu")({"image": pictures})["code"]
    np.testing.assert_array_equal(
        np.stack(codes), codes_of_encode(album / "run", album / "more", tmp_path / "c.parquet")
    )


def test_the_rows_of_a_frame_are_encoded_as_a_table(tmp_path):
    """column=None: words, gaps and the order of the columns are those that training met."""
    table = pd.DataFrame({"a": [1.0, 2.0, None, 4.0] * 8, "b": [3.0, 1.0, 2.0, 5.0] * 8, "kind": ["u", "v"] * 16})
    table.to_csv(tmp_path / "t.csv", index=False)
    words = ("--set", "data.columns=a,b,kind")
    assert (
        diffrep("train", "--data", tmp_path / "t.csv", "--method", "ae", "--out", tmp_path / "r", *SMALL, *words) == 0
    )
    expected = codes_of_encode(tmp_path / "r", tmp_path / "t.csv", tmp_path / "c.parquet")
    encode = BatchEncoder(tmp_path / "r", None, "cpu")
    other_order = table[["kind", "b", "a"]]
    np.testing.assert_array_equal(np.stack(list(encode(other_order)["code"])), expected)
    np.testing.assert_array_equal(np.stack(encode({c: table[c].tolist() for c in table})["code"]), expected)
    assert len(encode(table[:0])) == 0


def test_an_encoder_is_of_certain_weights(tmp_path):
    """Engines keep results under what a function holds: other weights make another function, and one whose run was
    trained further says so in place of giving codes of two models."""
    shutil.copytree(run_of("ae"), tmp_path / "run")
    encode = BatchEncoder(tmp_path / "run", device="cpu")
    tensors, about = load_tensors(tmp_path / "run" / "model.safetensors")
    first = next(name for name, value in tensors.items() if value.is_floating_point())
    save_tensors(tmp_path / "run" / "model.safetensors", {**tensors, first: tensors[first] + 1}, about)
    assert pickle.dumps(BatchEncoder(tmp_path / "run", device="cpu")) != pickle.dumps(encode)
    with pytest.raises(UserError, match="make the encoder anew"):
        pickle.loads(pickle.dumps(encode))({"image": np.zeros((2, 8, 8), np.uint8)})
