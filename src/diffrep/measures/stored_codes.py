"""Codes of a split, kept beside a run so that they are made once."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffrep.data import Examples
from diffrep.files import writing
from diffrep.measures.evaluate import codes
from diffrep.models.base import Model
from diffrep.runs.records import digest, weights_digest

PROTOCOL = "codes-1"  # mean codes of one split, in its order


def stored_codes(
    folder: Path,
    name: str,
    model: Model,
    examples: Examples,
    t: float | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """(N, d) mean codes of a split from folder/NAME-...npz, or made and put there, where they replace older weights'.

    The file is the one of these weights, these examples and this t, and says so; one that is broken is made anew.
    """
    weights = weights_digest(model.state_dict())
    key = digest(PROTOCOL, weights, examples.fingerprint, t)
    path = folder / f"{name}-{weights[:8]}-{key}.npz"
    known = _read(path, len(examples))
    if known is not None:
        progress(len(examples))
        return known
    made = codes(model, examples, t, progress=progress)
    at, seen = np.array(np.nan if t is None else t), np.array(examples.fingerprint)
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                np.savez(file, codes=made, protocol=np.array(PROTOCOL), weights=np.array(weights), data=seen, t=at)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        for old in folder.glob(f"{name}-????????-*.npz"):
            if not old.name.startswith(f"{name}-{weights[:8]}-"):
                old.unlink()
    return made


def _read(path: Path, count: int) -> np.ndarray | None:
    try:
        with np.load(path, allow_pickle=False) as content:
            found = content["codes"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    return found if len(found) == count else None
