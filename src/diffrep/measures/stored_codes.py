"""Codes of a split, stored in the run's directory for reuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffrep.data import Examples
from diffrep.data.readers.arrays import BROKEN
from diffrep.files import replacing, writing
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
    """(N, d) mean codes of a split from folder/NAME-...npz, or computed and written there in place of files of older
    weights.

    The name of the file depends on weights, examples and t, and its content states them; a broken file is replaced.
    """
    weights = weights_digest(model.state_dict())
    key = digest(PROTOCOL, weights, examples.fingerprint, t)
    path = folder / f"{name}-{weights[:8]}-{key}.npz"
    stored = _read(path, len(examples))
    if stored is not None:
        progress(len(examples))
        return stored
    made = codes(model, examples, t, progress=progress)
    at, data = np.array(np.nan if t is None else t), np.array(examples.fingerprint)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, codes=made, protocol=np.array(PROTOCOL), weights=np.array(weights), data=data, t=at)
    with writing(path):
        for old in folder.glob(f"{name}-????????-*.npz"):
            if not old.name.startswith(f"{name}-{weights[:8]}-"):
                old.unlink()
    return made


def _read(path: Path, count: int) -> np.ndarray | None:
    try:
        with np.load(path, allow_pickle=False) as content:
            content_codes = content["codes"]
    except BROKEN:
        return None
    return content_codes if len(content_codes) == count else None
