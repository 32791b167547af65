"""The library in a few calls, for Python: what the commands offer, for arrays too."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from diffrep import config, runs
from diffrep.config import Settings
from diffrep.data import load as load_data
from diffrep.methods.catalog import Method, Recipe, name_of
from diffrep.runs.run import Run

__all__ = ["load_data", "settings", "train"]


def settings(*changes: str, file: str | Path | None = None) -> Settings:
    """Settings from a TOML or JSON file (or the defaults) with changes such as "train.lr=1e-3".

    UserError: a name that does not exist (the nearest one is named), a value out of range.
    """
    return config.override(Settings(), changes) if file is None else config.load(file, changes)


def train(
    data: object,
    out: str | Path,
    method: str | Method | Recipe = "vae-vdm",
    budget: str = "60s",
    changes: Sequence[str] = (),
    restart: bool = False,
    callbacks: Sequence[object] = (),
) -> Run:
    """Train a method on data into the run directory `out`, or continue the run that is there to its budget.

    data: whatever `diffrep.load_data` takes: a name, a path, an array, or a pair (x, labels). budget: "120s",
    "20000ex" or "3epochs". changes: settings, such as "code.dim=64". method: a
    name, or a function of `diffrep.Parts` that returns a model. callbacks: objects
    with on_log(line) or on_end(run), which may raise `diffrep.Stop`. The run's model holds the averaged weights, and
    encodes, decodes, reconstructs, samples and interpolates. UserError for any mistake in the arguments.
    """
    named = isinstance(data, (str, Path))
    chosen = settings(
        f"data.source={data if named else runs.IN_MEMORY}",
        f"method={name_of(method)}",
        f"train.budget={budget}",
        *changes,
    )
    splits = None if named else runs.splits_of(chosen, source=data)
    for sentence in splits.train.reading.doubts() if splits else ():
        warnings.warn(sentence, stacklevel=2)
    return runs.train(chosen, out, restart, splits, callbacks=callbacks)
