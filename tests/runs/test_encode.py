"""Codes on disk: every example once, the model's own numbers, whole or absent."""

import os
import socket
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from diffrep import data, runs
from diffrep.codes.posteriors import Code
from diffrep.data.batches import batches
from diffrep.data.stores import Encoded, Grid, Store
from diffrep.errors import UserError
from diffrep.models.base import Model
from diffrep.runs import encode as embed
from processes import PROCESSES
from runs_at_hand import SMALL, diffrep, one_sentence, run_of
from samples import COLOUR, write_folder

SAID_ONCE = ("is read as", "64 examples in 2 steps", "diffrep evaluate")


class EchoModel(Model):
    """A model whose code is the first three numbers of x, times `scale`; interrupted after so many passes."""

    def __init__(self, scale: float = 1.0, after: int = 10**9):
        super().__init__((3,), None, None)
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self.passes, self.after = 0, after

    def loss(self, batch, player="model"):
        return {}

    def need_code(self, t=None):
        return SimpleNamespace(dim=3, deterministic=True)

    def encode(self, x, t=None):
        self.passes += 1
        if self.passes > self.after:
            raise KeyboardInterrupt
        return Code(self.scale * x.flatten(1)[:, :3])


class Slow(Store):
    """A store in memory that says it is read lazily, and counts its batches."""

    lazy = True

    def __init__(self, store):
        self.store, self.count = store, 0

    def raw(self, index):
        self.count += 1
        return self.store.raw(index)

    def subset(self, index):
        return Slow(self.store.subset(index))

    def to(self, device):
        return self


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
    with pytest.raises(UserError, match="6 processes cannot share 5 examples"):
        embed.embed(model, examples, tmp_path / "d.parquet", shard=0, shards=6)


def test_a_row_says_its_file_and_its_place_in_it(tmp_path):
    """Parquet in two files, of which the second begins anew; pictures, each a file; any other source, a file."""
    x = np.random.default_rng(0).normal(size=(1797, 64)).round(3)
    for name, part in (("train-0", x[:1000]), ("test-0", x[1000:])):
        columns = {f"x{i}": part[:, i] for i in range(64)}
        (tmp_path / "set").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / "set" / f"{name}.parquet")
    rows = table(embed.embed(EchoModel(), data.whole(str(tmp_path / "set")), tmp_path / "c.parquet"))
    files = [str(tmp_path / "set" / f"{name}.parquet") for name in ("test-0", "train-0")]
    assert rows["file"].tolist() == [files[0]] * 797 + [files[1]] * 1000
    assert rows["row"].tolist() == [*range(797), *range(1000)] and rows["index"].tolist() == [*range(1797)]
    assert rows["split"].tolist() == ["test"] * 797 + ["train"] * 1000
    folder = write_folder(tmp_path / "photos", COLOUR, ["a", "b"] * 6)
    rows = table(embed.embed(EchoModel(), data.whole(str(folder)), tmp_path / "d.parquet"))
    assert rows["file"].tolist() == [str(folder / name) for name in rows["id"]] and not rows["row"].any()
    rows = table(embed.embed(EchoModel(), data.whole("digits").subset(torch.tensor([7, 3])), tmp_path / "e.parquet"))
    assert rows["file"].tolist() == ["digits"] * 2 and rows["row"].tolist() == [7, 3]


def test_codes_are_written_in_parts_and_go_on_after_a_kill(tmp_path, monkeypatch):
    """Stopped in the third part, the same call encodes the rest alone; the file is that of one go, a row group for each
    part, and no part is left. Parts of other weights or of other data are made anew."""
    monkeypatch.setattr(embed, "ROWS", 70)
    monkeypatch.setattr(embed, "BATCH", 64)
    examples, model = data.whole("digits").subset(torch.arange(300)), EchoModel()
    whole = embed.embed(model, examples, tmp_path / "whole.parquet")
    groups = pq.ParquetFile(whole)
    assert [groups.metadata.row_group(i).num_rows for i in range(groups.num_row_groups)] == [70, 70, 70, 70, 20]
    killed = EchoModel(after=4)  # passes of the network: two for each part
    with pytest.raises(KeyboardInterrupt):
        embed.embed(killed, examples, tmp_path / "c.parquet")
    assert not (tmp_path / "c.parquet").exists() and len(list((tmp_path / ".c.parquet.parts").iterdir())) == 2
    counted: list[int] = []
    path = embed.embed(model := EchoModel(), examples, tmp_path / "c.parquet", progress=counted.append)
    assert model.passes == 2 + 2 + 1 and sum(counted) == 300
    assert path.read_bytes() == whole.read_bytes() and [p.name for p in tmp_path.iterdir()] != []
    assert not (tmp_path / ".c.parquet.parts").exists()
    for other, of in (
        (EchoModel(scale=2.0), examples),
        (EchoModel(), data.whole("digits").subset(torch.arange(1, 301))),
    ):
        with pytest.raises(KeyboardInterrupt):
            embed.embed(EchoModel(after=4), examples, tmp_path / "d.parquet")
        found = table(embed.embed(other, of, tmp_path / "d.parquet"))
        assert other.passes == 9
        expected = other.scale * of.batch(torch.arange(300)).x.flatten(1)[:, :3]
        np.testing.assert_array_equal(found["code"], expected.detach().numpy())


def test_the_lock_of_a_file_of_codes_is_held_until_it_is_whole(tmp_path, monkeypatch):
    """A second process that comes when the parts are removed is turned away, and takes nothing of the first along."""
    unlink, join, turned_away = Path.unlink, embed._join, []

    def come(path, **options):
        with pytest.raises(UserError, match="another process"):
            embed.embed(EchoModel(), examples, tmp_path / "c.parquet")
        turned_away.append(path.name)
        monkeypatch.setattr(Path, "unlink", unlink)
        unlink(path, **options)

    examples = data.whole("digits").subset(torch.arange(30))
    monkeypatch.setattr(embed, "_join", lambda *these: (join(*these), monkeypatch.setattr(Path, "unlink", come)))
    embed.embed(EchoModel(), examples, tmp_path / "c.parquet")
    assert turned_away == ["00000.parquet"] and [file.name for file in tmp_path.iterdir()] == ["c.parquet"]


def test_parts_of_a_file_that_has_changed_are_made_anew(tmp_path, monkeypatch):
    """The fingerprint of a lazily read set is over the beginning of each example: size and time of a file count too."""
    monkeypatch.setattr(embed, "ROWS", 70)
    monkeypatch.setattr(embed, "BATCH", 64)
    file = tmp_path / "x.npy"
    file.write_bytes(b"1")
    examples = data.whole("digits").subset(torch.arange(300))
    lazy = replace(examples, store=Slow(examples.store), parts=((str(file), 300),))
    for changed, passes in ((False, 5), (True, 9)):
        with pytest.raises(KeyboardInterrupt):
            embed.embed(EchoModel(after=4), lazy, tmp_path / "c.parquet")
        if changed:
            os.utime(file, ns=(1, 1))
        embed.embed(model := EchoModel(), lazy, tmp_path / "c.parquet")
        assert model.passes == passes


def test_a_set_that_cannot_be_read_is_not_called_one_that_cannot_be_written(tmp_path, monkeypatch):
    """A disk that fails in the middle is the source's; nothing of the file is there."""
    examples = data.whole("digits")

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(type(examples.store), "raw", fail)
    with pytest.raises(UserError, match=r"digits cannot be read \(Input/output error\)"):
        embed.embed(EchoModel(), examples, tmp_path / "c.parquet")
    assert not list(tmp_path.iterdir())


def test_a_lazily_read_set_is_read_one_batch_ahead(tmp_path):
    """While batch k is used, k + 1 is read; batches, their order and their random numbers are those of a set in
    memory, and an error comes where its batch would."""
    folder = write_folder(tmp_path / "photos", COLOUR, ["a", "b"] * 6)
    here = data.whole(str(folder))
    away = replace(here, store=Slow(here.store))
    read = batches(away, 5, 3, torch.device("cpu"))
    for number, (ours, theirs) in enumerate(zip(read, batches(here, 5, 3, torch.device("cpu")), strict=True)):
        assert torch.equal(ours.x, theirs.x) and torch.equal(ours.random.normal(2), theirs.random.normal(2))
        deadline = time.monotonic() + 10
        while away.store.count < min(number + 2, 3) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert away.store.count == min(number + 2, 3)
    (folder / here.ids[7]).write_bytes(b"broken")
    broken = Encoded([str(folder / name) for name in here.ids], here.ids, "RGB", Grid(256), torch.arange(12))
    read = batches(replace(here, store=broken), 5, 3, torch.device("cpu"))
    assert len(next(read)) == 5
    with pytest.raises(UserError):
        next(read)


def test_codes_written_can_be_decoded(tmp_path):
    """The file of `encode` is what `sample --codes` reads."""
    examples, model = data.whole("digits").subset(torch.arange(3)), runs.load(run_of("ae")).model
    embed.embed(model, examples, tmp_path / "c.parquet")
    assert diffrep("sample", run_of("ae"), "--codes", tmp_path / "c.parquet", "-o", tmp_path / "x.png") == 0
    assert (tmp_path / "x.png").exists()


@pytest.mark.long
def test_processes_of_torchrun_find_each_other(tmp_path):
    """Started by torchrun itself, two processes train one run and speak once."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "diffrep"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    run, words = tmp_path / "run", ("--data", "digits", "--method", "drl", *SMALL)
    train = subprocess.run([*start, "train", "--out", str(run), *words], capture_output=True, text=True, env=env)
    assert train.returncode == 0, train.stderr
    assert all(train.stdout.count(said) == 1 for said in SAID_ONCE)


def in_process(run: str, rank: int, port: int) -> None:
    """What each of two processes does, with the variables that torchrun sets."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "localhost"} | {name: str(value) for name, value in told.items()}
    with open(f"{run}-said-{rank}", "w") as said, redirect_stdout(said):
        code = diffrep("train", "--out", run, "--data", "digits", "--method", "drl", *SMALL)
    sys.exit(code)


def test_two_processes_are_one_run(tmp_path, monkeypatch):
    """They train one run and speak once; together they write every code once, equal to one process's."""
    run = tmp_path / "run"
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    both = [PROCESSES.Process(target=in_process, args=(str(run), rank, port)) for rank in (0, 1)]
    for one in both:
        one.start()
    for one in both:
        one.join(120)
    assert [one.exitcode for one in both] == [0, 0]
    said = "".join((tmp_path / f"run-said-{rank}").read_text() for rank in (0, 1))
    assert all(said.count(words) == 1 for words in SAID_ONCE)
    assert diffrep("encode", run, "digits", "-o", tmp_path / "one.parquet") == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):  # as torchrun sets it; they need not hear of each other
        monkeypatch.setenv("RANK", rank)
        assert diffrep("encode", run, "digits", "-o", tmp_path / "c.parquet") == 0
    shards = [table(tmp_path / f"c-0000{part}-of-00002.parquet") for part in (0, 1)]
    for name, values in table(tmp_path / "one.parquet").items():
        found = np.concatenate([shard[name] for shard in shards])
        if values.dtype.kind == "f":
            np.testing.assert_allclose(found, values, atol=1e-5)
        else:
            assert np.array_equal(found, values)
