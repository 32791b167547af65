"""One callable for every engine: it is pickled, given batches, and says what `encode` says."""

import io
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from diffrep import runs
from diffrep.errors import UserError
from diffrep.runs.batch_encoder import BatchEncoder
from runs_at_hand import run_of


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
