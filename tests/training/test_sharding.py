"""Weights of which each process holds a part: methods train as they do with whole ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny
from diffrep.errors import UserError
from diffrep.training import engine, journal, sharding
from diffrep.training.checkpoints import load_tensors

METHODS = ("ssm", "vae-vdm", "adversarial-drl", "ae", "byol")  # of each kind: what it differentiates, owns and follows
WORDS = {"whole": (), "parts": ("train.shard=true",), "bf16": ("train.shard=true", "train.precision=bf16")}


def in_processes() -> None:
    """What each of two processes does."""
    sharding.LEAST, real, counts = 100, engine.cut, []

    def counted(model, here):
        model = real(model, here)
        held, all_ = (sum(map(size, model.parameters())) for size in (lambda p: p.to_local().numel(), torch.numel))
        counts.append(held / all_)
        return model

    engine.cut = counted
    for method in METHODS:
        for name, changes in WORDS.items():
            tiny.train(method, *changes, out=Path(os.environ["TINY_RUNS"]) / method / name)
    assert max(counts) < 0.6, counts


@pytest.mark.parametrize("other", ["compile=true", "patience=3", "precision=fp16"])
def test_what_needs_whole_weights_is_refused(other, tmp_path):
    with pytest.raises(UserError, match=r"train\.shard without"):
        tiny.train("drl", "train.shard=true", f"train.{other}", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_methods_train_in_parts(tmp_path):
    """Two processes with halves of the weights end where two with all of them end, and log the same; so does bf16, as
    nearly as it can. Each holds about half."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--no-python"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", sys.executable, "-c"]
    environment = {**os.environ, "TINY_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), environment.get("PYTHONPATH", "")])
    command += ["import test_sharding as t; t.in_processes()"]
    done = subprocess.run(command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for method in METHODS:
        one, two = (load_tensors(tmp_path / method / name / "model.safetensors")[0] for name in ("whole", "parts"))
        assert one.keys() == two.keys()
        assert all(torch.allclose(one[name], two[name], rtol=0, atol=5e-4) for name in one), method
        logs = [journal.read(tmp_path / method / name) for name in WORDS]
        for first, second, third in zip(*logs, strict=True):
            assert first["loss"] == pytest.approx(second["loss"], rel=1e-3, abs=1e-5)
            assert first["watch"] == pytest.approx(second["watch"], rel=1e-2, abs=1e-4)
            assert first["loss"] == pytest.approx(third["loss"], rel=0.1, abs=0.05)
