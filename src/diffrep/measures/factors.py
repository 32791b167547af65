"""What a simple model reads of each factor from the codes of a run, and the file of that."""

from __future__ import annotations

import numpy as np
import torch

from diffrep.data import Examples, Splits
from diffrep.measures.evaluate import parts_of
from diffrep.measures.probe import CODE
from diffrep.measures.stored_codes import stored_codes
from diffrep.probes.appearance import appearance
from diffrep.probes.factors import probe_factors
from diffrep.probes.result import Result
from diffrep.progress import Progress, counting, silent
from diffrep.runs.records import FACTORS, FEATURES
from diffrep.runs.run import Run

CHUNK = 500  # pictures in memory at once


def factors(
    run: Run, splits: Splits, named: bool = True, measured: bool = False, progress: Progress = silent
) -> dict[str, Result]:
    """Name of each factor -> the result of its probe, on the test split -> RUN/factors.json.

    named: the factors that the data names. measured: those that its pictures show (`appearance`); where both have a
    name, the data's is taken. Nothing is written where there is no factor. UserError: no pictures to measure.
    """
    parts = parts_of(splits)
    columns = [part.factors if named else {} for part in parts]
    if measured:
        shown = map(_appearance, parts)
        columns = [
            {**own, **{n: c for n, c in more.items() if n not in own}} for own, more in zip(columns, shown, strict=True)
        ]
    if not columns[0]:
        return {}
    count = counting("codes", sum(map(len, parts)), progress)
    codes = [stored_codes(run.directory / FEATURES, CODE, run.model, part, progress=count) for part in parts]
    progress("factors", 0, None)
    train, valid, test = zip(codes, columns, strict=True)
    return run.keep(FACTORS, {"factors": probe_factors(train, valid, test)})["factors"]


def _appearance(part: Examples) -> dict[str, np.ndarray]:
    """Name -> column (N,): what the pictures of a split show."""
    chunks = [appearance(part.batch(rows).x.cpu().numpy()) for rows in torch.arange(len(part)).split(CHUNK)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
