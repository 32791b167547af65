"""A run directory: continued bit for bit, never lost to a mistake, whole after a kill or a full disk."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from diffrep import api, files, runs
from diffrep.errors import UserError
from diffrep.models.diffusion import DiffusionModel
from diffrep.training.checkpoints import Checkpoints
from runs_at_hand import SMALL, content, diffrep, one_sentence, run_of


@pytest.fixture
def run(tmp_path, capsys) -> Path:
    """A copy of a small run, to be changed."""
    shutil.copytree(run_of("vae-vdm"), tmp_path / "run")
    capsys.readouterr()
    return tmp_path / "run"


def test_a_finished_run_says_so_and_a_larger_budget_goes_on(run, capsys):
    """The same command twice is no mistake and changes no weight; more budget means more steps."""
    before = (run / "model.safetensors").read_bytes()
    assert diffrep("train", "--out", run) == 0
    assert "Nothing is left to do" in capsys.readouterr().out
    assert (run / "model.safetensors").read_bytes() == before
    assert diffrep("train", "--out", run, "--budget", "128ex", "--json") == 0
    assert json.loads(capsys.readouterr().out)["step"] == 4


def test_the_usual_size_of_a_code_is_the_same_named_or_not(run, capsys):
    """Settings of a run that state 32, as they did before the size followed from the data, are those of none."""
    words = ("train", "--out", run, "--budget", "192ex", "--json")
    assert diffrep(*words, "--set", "code.dim=32") == 0
    assert diffrep("train", "--out", run, "--budget", "256ex", "--set", "code.dim=31") == 2
    assert "code.dim=32" in one_sentence(capsys)


@pytest.mark.parametrize(
    "words",
    [
        ("--data", "/nowhere", "--restart"),
        ("--method", "vae_vdm", "--restart"),
        ("--set", "train.precision=fp16", "--restart"),
        ("--set", "train.accumulate=5", "--restart"),
        ("--set", 'train.trackers=["none"]', "--restart"),
        ("--method", "drl"),
        ("--data", "other.npy"),
        ("--set", "train.lr=1"),
    ],
)
def test_a_mistake_leaves_the_run_that_is_there_as_it_is(words, run, capsys):
    """Above all a restart that cannot begin: hours of training would be gone."""
    before = content(run)
    assert diffrep("train", "--out", run, *words) == 2
    one_sentence(capsys)
    assert content(run) == before


@pytest.mark.parametrize("restart", [(), ("--restart",)])
@pytest.mark.parametrize("out", ["folder", "folder/thesis.txt", "folder/thesis.txt/run"])
def test_what_is_no_run_is_never_touched(out, restart, tmp_path, monkeypatch, capsys):
    """--out that names a file, a folder of other things, or a place below a file."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("folder/thesis.txt").write_text("keep")
    assert diffrep("train", "--data", "digits", "--out", out, *SMALL, *restart) == 2
    one_sentence(capsys)
    assert content(tmp_path) == {"folder/thesis.txt": b"keep"}


def test_restart_keeps_the_settings_unless_data_is_named(run, capsys):
    """`--restart` alone must not fall back to other data; what others put beside the run stays."""
    (run / "notes.txt").write_text("keep")
    weights = (run / "model.safetensors").read_bytes()
    assert diffrep("train", "--out", run, "--restart") == 0
    assert (run / "model.safetensors").read_bytes() == weights  # the same seed, from the start
    assert diffrep("train", "--out", run, "--restart", "--data", "digits", "--method", "ae", *SMALL) == 0
    assert json.loads((run / "config.json").read_text())["method"] == "ae"
    assert (run / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("there", [False, True])
def test_a_disk_that_takes_nothing_is_one_sentence(there, number, run, tmp_path, monkeypatch, capsys):
    """Full, read-only or forbidden: a new run leaves nothing behind, one that is there stays whole."""
    out = run if there else tmp_path / "a" / "new"
    before, real = content(tmp_path), os.fsync

    def refuse(file):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    words = ("--budget", "640ex") if there else ("--data", "digits", *SMALL)
    assert diffrep("train", "--out", out, *words) == 2
    assert os.strerror(number) in one_sentence(capsys)
    monkeypatch.setattr(files.os, "fsync", real)
    assert content(tmp_path) == before
    assert there or not (tmp_path / "a").exists()


def test_a_broken_checkpoint_is_passed_over_and_said(run, capsys):
    """The one before it stands; where none is whole the run is left as it is."""
    assert diffrep("train", "--out", run, "--budget", "128ex") == 0
    newest = Checkpoints(run / "checkpoints").paths()[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    capsys.readouterr()
    assert diffrep("train", "--out", run, "--budget", "192ex") == 0
    assert newest.name in one_sentence(capsys)
    for path in Checkpoints(run / "checkpoints").paths():
        path.write_bytes(path.read_bytes()[:1000])
    before = content(run)
    assert diffrep("train", "--out", run, "--budget", "256ex") == 2
    assert "every checkpoint" in one_sentence(capsys)
    assert content(run) == before


def unsealed(text: bytes) -> bytes:
    """A file of JSON as its owner may change it: without its checksum."""
    return re.sub(rb'  "checksum": .*\n', b"", text)


@pytest.mark.parametrize(
    "file, change, said",
    [
        ("model.safetensors", lambda text: text[:999], "model.safetensors"),
        ("config.json", lambda text: unsealed(text).replace(b'"method"', b'"methud"'), "Did you mean 'method'"),
        ("config.json", lambda text: b"{", "not valid JSON"),
        ("config.json", lambda text: unsealed(text).replace(b'"width": 8', b'"width": 16'), "another model"),
        ("config.json", lambda text: text.replace(b'"width": 8', b'"width": 16'), "changed after it was written"),
        ("data.json", lambda text: b'{"shape": 3}', "data.json"),
        ("data.json", lambda text: re.sub(rb'"bins": \d+', b'"bins": 1.5', unsealed(text)), "read (bins: "),
        ("data.json", lambda text: re.sub(rb'"shape": \[', b'"shape": [0,', unsealed(text)), "read (shape.0: "),
        ("data.json", lambda text: re.sub(rb'"latent": \d+', b'"latent": -1', unsealed(text)), "read (latent: "),
    ],
)
def test_a_broken_run_is_one_sentence(file, change, said, run, capsys):
    """Files that were cut short or edited are named; nothing is unpickled and nothing guessed."""
    (run / file).write_bytes(change((run / file).read_bytes()))
    assert diffrep("sample", run, "-n", 1, "-o", run.parent / "x.png") == 2
    assert said in one_sentence(capsys)


def test_a_run_killed_before_its_settings_stood_can_be_begun(tmp_path):
    """A kill between the first two files leaves only the card of the data."""
    (tmp_path / "run").mkdir()
    shutil.copy(run_of("vae-vdm") / "data.json", tmp_path / "run")
    assert diffrep("train", "--data", "digits", "--out", tmp_path / "run", *SMALL) == 0
    assert runs.load(tmp_path / "run").card.shape == (1, 8, 8)


EIGHT = ("--data", "digits", "--method", "vae-vdm", *SMALL, "--budget", "256ex", "--set", "train.checkpoint_every=2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Eight steps without a stop."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert diffrep("train", "--out", out, *EIGHT) == 0
    return out


def test_stopped_and_continued_ends_the_same(whole, tmp_path, monkeypatch, capsys):
    """Stopped by Ctrl-C within a step: one sentence; weights and log end bit for bit as those of an unbroken run."""
    out, loss = tmp_path / "stopped", DiffusionModel.loss

    def interrupted(*words, **more):
        if list(out.glob("checkpoints/step-*")):
            signal.raise_signal(signal.SIGINT)
        return loss(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModel, "loss", interrupted)
        assert diffrep("train", "--out", out, *EIGHT) == 130
    said = capsys.readouterr().err
    assert "saved" in said and "continues" in said and said.count("\n") == 1
    assert diffrep("train", "--out", out) == 0
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_process_that_ends_at_any_moment_continues_the_same(number, code, whole, tmp_path):
    """Killed, or stopped from outside: weights and log end bit for bit as those of an unbroken run."""
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "diffrep", "train", "--out", str(out), *EIGHT]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True
    )
    while not list(out.glob("checkpoints/step-*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == code
    assert code < 0 or ("saved" in said and "continues" in said and said.count("\n") == 1)
    assert diffrep("train", "--out", out) == 0
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_an_array_in_memory_is_trained_on_and_not_kept(tmp_path):
    """What `train` returns is ready for use, as what `load` returns is; only its data, which has no name, is missed."""
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    small = ("decoder.width=8", "encoder.width=8", "train.batch=8", "decoder.dropout=0.5")
    run = api.train(x, tmp_path / "run", budget="8ex", changes=small)
    again = runs.load(tmp_path / "run")
    test = run.splits().test.batch(torch.arange(2)).x
    assert not run.model.training and not again.model.training
    torch.testing.assert_close(run.model.reconstruct(test), again.model.reconstruct(test))
    with pytest.raises(UserError, match=r"array in memory.*load_data"):
        again.splits()


def test_codes_of_a_run_that_has_diverged_are_one_sentence(tmp_path, capsys):
    """A prior cannot be fitted to codes that are not finite, after steps of length 1e30."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 9, (90, 4, 4), dtype=np.uint8))
    words = ("--data", tmp_path / "x.npy", "--method", "ae", "--out", tmp_path / "run", *SMALL)
    assert diffrep("train", *words, "--set", "train.lr=1e30", "--set", "train.warmup=0.0") == 2
    said = capsys.readouterr().err.splitlines()[-1]  # after the sentences on steps that were skipped
    assert said.startswith("diffrep: the codes of 63 of 63 training examples are not finite, so training has diverged")
