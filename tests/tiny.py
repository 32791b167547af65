"""The smallest runs there are: pictures of 4 x 4 black and white numbers, and three steps of every method."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from diffrep import runs
from diffrep.config import Settings, override
from diffrep.methods.catalog import METHODS
from diffrep.training.checkpoints import load_tensors

SMALL = (
    "decoder.width=4", "decoder.multipliers=[1,1]", "encoder.width=4", "code.dim=4", "train.batch=16",
    "train.schedule=constant", "train.warmup=0.0", "train.checkpoint_every=2", "train.log_every=1",
)  # fmt: skip
QUICK = {"diffae": ("prior.kind=normal",)}  # its own prior takes longer to fit than all else
EVERY = [*METHODS]
FOLDER = Path(mkdtemp(prefix="diffrep-tiny-"))


@cache
def source(test: int = 0, valid: int = 0, labels: int = 0, table: bool = False) -> Path:
    """An .npz of three splits; another number than 0 replaces the examples of a split, or all labels, by others."""
    arrays = {}
    for place, (part, count, seed) in enumerate((("train", 48, 0), ("valid", 24, valid), ("test", 24, test))):
        rng = np.random.default_rng([place, seed])
        y = rng.integers(0, 2, count)
        y[:2] = 0, 1
        x = (rng.random((count, 4, 4)) < 0.3 + 0.4 * y[:, None, None]).astype(bool)
        if table:
            x = (y[:, None] + rng.normal(size=(count, 5))) * (1 + 4 * (seed > 0)) + 3 * seed
        arrays |= {f"x_{part}": x, f"y_{part}": y if not labels else np.random.default_rng(labels).permutation(y)}
    path = FOLDER / f"data-{test}-{valid}-{labels}-{table}.npz"
    np.savez(path, **arrays)
    return path


def settings(method: str, *changes: str, data: Path | None = None) -> Settings:
    words = [f"method={method}", f"data.source={data or source()}", "train.budget=48ex", *SMALL]
    return override(Settings(), [*words, *QUICK.get(method, ()), *changes])


def train(method: str, *changes: str, data: Path | None = None, out: Path | None = None) -> runs.Run:
    """A run of its own; its warnings about settings are for others to test."""
    out = Path(mkdtemp(dir=FOLDER)) / "run" if out is None else out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return runs.train(settings(method, *changes, data=data), out)


@cache
def base(method: str) -> runs.Run:
    """Three steps of the method; shared, so nobody changes it."""
    return train(method)


def weights(run: runs.Run) -> dict[str, torch.Tensor]:
    return load_tensors(run.directory / "model.safetensors")[0]


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> list[str]:
    """The names whose tensors differ; empty where all are bit-identical."""
    assert one.keys() == two.keys()
    return [name for name in one if not torch.equal(one[name], two[name])]


def copy_of(run: runs.Run, place: Path) -> runs.Run:
    """A run in a directory of its own, without codes and samples that were stored before."""
    shutil.copytree(run.directory, place, ignore=shutil.ignore_patterns("features", "samples", "checkpoints"))
    return replace(run, directory=place)
