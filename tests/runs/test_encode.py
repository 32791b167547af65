"""Codes on disk: every example once, the model's own numbers, whole or absent."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from diffrep import data, runs
from diffrep.errors import UserError
from diffrep.runs import encode as embed
from runs_at_hand import SMALL, diffrep, one_sentence, run_of
from samples import COLOUR, write_folder


def table(path: Path) -> dict[str, np.ndarray]:
    read = pq.ParquetFile(path).read()
    return {name: np.array(read.column(name).to_pylist()) for name in read.column_names}


def test_rows_are_the_examples_in_order_with_the_models_codes(tmp_path):
    """Two routes to one number: the file, and the model asked directly."""
    run, path = run_of("vae-vdm"), tmp_path / "codes.parquet"
    assert diffrep("encode", run, "digits", "-o", path) == 0
    rows, examples = table(path), data.whole("digits")
    code = runs.load(run).model.encode(examples.batch(torch.arange(len(examples))).x)
    assert np.array_equal(rows["index"], np.arange(1797))
    assert np.array_equal(rows["label"], examples.labels.numpy())
    np.testing.assert_allclose(rows["code"], code.mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(rows["spread"], code.spread.numpy(), atol=1e-5)


def test_files_are_named_and_folders_are_classes(tmp_path):
    """A row can be traced to its picture."""
    folder = write_folder(tmp_path / "photos", COLOUR, ["a", "b"] * 6)
    assert diffrep("train", "--data", folder, "--method", "ae", "--out", tmp_path / "run", *SMALL) == 0
    assert diffrep("encode", tmp_path / "run", folder, "-o", tmp_path / "c.parquet") == 0
    rows = table(tmp_path / "c.parquet")
    assert sorted(rows["id"]) == sorted(f"{'ab'[i % 2]}/{i:04d}.png" for i in range(12))
    assert [id[0] for id in rows["id"]] == ["ab"[label] for label in rows["label"]]


def test_a_code_for_each_noise_level(tmp_path, capsys):
    """--t-grid 2 asks at 1/4 and 3/4; a code that does not depend on t says so, and writes nothing."""
    run, path = run_of("tdrl"), tmp_path / "new" / "codes.parquet"
    assert diffrep("encode", run, "digits", "-o", path, "--t-grid", 2) == 0
    rows = table(path)
    x = data.whole("digits").batch(torch.arange(5)).x
    for t in (0.25, 0.75):
        expected = runs.load(run).model.encode(x, t).mean.numpy()
        np.testing.assert_allclose(rows[f"code_t{t:.2f}"][:5], expected, atol=1e-5)
    still, other = run_of("vae-vdm"), tmp_path / "other" / "codes.parquet"
    capsys.readouterr()
    assert diffrep("encode", still, "digits", "-o", other, "--t", 0.3) == 2
    assert "does not depend on t" in one_sentence(capsys)
    assert diffrep("encode", run, "digits", "-o", other, "--t", 0.3, "--t-grid", 2) == 2
    one_sentence(capsys)
    assert not other.parent.exists()


def test_shards_hold_every_row_once_and_too_many_say_so(tmp_path):
    """Each process takes a consecutive part; a part without examples would be a file without a schema."""
    model, examples = runs.load(run_of("vae-vdm")).model, data.whole("digits").subset(torch.arange(5))
    paths = [embed.embed(model, examples, tmp_path / "c.parquet", shard=shard, shards=3) for shard in range(3)]
    assert [path.name for path in paths] == [f"c-0000{part}-of-00003.parquet" for part in range(3)]
    assert np.concatenate([table(path)["index"] for path in paths]).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="too few for 6 processes"):
        embed.embed(model, examples, tmp_path / "d.parquet", shard=0, shards=6)


def test_codes_written_can_be_decoded(tmp_path):
    """The file of `encode` is what `sample --codes` reads."""
    examples, model = data.whole("digits").subset(torch.arange(3)), runs.load(run_of("ae")).model
    embed.embed(model, examples, tmp_path / "c.parquet")
    assert diffrep("sample", run_of("ae"), "--codes", tmp_path / "c.parquet", "-o", tmp_path / "x.png") == 0
    assert (tmp_path / "x.png").exists()


def test_processes_of_torchrun_find_each_other(tmp_path):
    """Two processes train one run and speak once; together they write every code once, equal to one process's."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "diffrep"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    run, words = tmp_path / "run", ("--data", "digits", "--method", "drl", *SMALL)
    train = subprocess.run([*start, "train", "--out", str(run), *words], capture_output=True, text=True, env=env)
    assert train.returncode == 0, train.stderr
    assert all(train.stdout.count(said) == 1 for said in ("is read as", "64 examples in 2 steps", "diffrep evaluate"))
    encode = [*start, "encode", str(run), "digits", "-o", str(tmp_path / "c.parquet")]
    done = subprocess.run(encode, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert diffrep("encode", run, "digits", "-o", tmp_path / "one.parquet") == 0
    shards = [table(tmp_path / f"c-0000{part}-of-00002.parquet") for part in (0, 1)]
    for name, values in table(tmp_path / "one.parquet").items():
        found = np.concatenate([shard[name] for shard in shards])
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found, values, atol=1e-5)
        else:
            assert np.array_equal(found, values)
