"""Probes of each factor on the codes of a run, and their file."""

from __future__ import annotations

import numpy as np
import torch

from diffrep.data import Examples, Splits
from diffrep.measures.evaluate import probe_splits
from diffrep.measures.probe import CODE
from diffrep.measures.stored_codes import stored_codes
from diffrep.probes.appearance import appearance
from diffrep.probes.factors import probe_factors
from diffrep.probes.result import Result
from diffrep.progress import Progress, counting, silent
from diffrep.runs.records import FACTORS, FEATURES
from diffrep.runs.run import Run

CHUNK = 500  # pictures in a batch


def factors(
    run: Run, splits: Splits, named: bool = True, measured: bool = False, progress: Progress = silent
) -> dict[str, Result]:
    """Name of each factor -> the result of its probe, on the test split -> RUN/factors.json.

    named: the factors that the data names. measured: those measured from its pictures (`appearance`); where both have a
    name, that of the data is used. Without a factor nothing is written. UserError: no pictures to measure.
    """
    probed = probe_splits(splits)
    columns = [split.factors if named else {} for split in probed]
    if measured:
        shown = map(_appearance, probed)
        columns = [
            {**own, **{n: c for n, c in more.items() if n not in own}} for own, more in zip(columns, shown, strict=True)
        ]
    if not columns[0]:
        return {}
    count = counting("codes", sum(map(len, probed)), progress)
    codes = [stored_codes(run.directory / FEATURES, CODE, run.model, split, progress=count) for split in probed]
    progress("factors", 0, None)
    train, valid, test = zip(codes, columns, strict=True)
    return run.keep(FACTORS, {"factors": probe_factors(train, valid, test)})["factors"]


def _appearance(split: Examples) -> dict[str, np.ndarray]:
    """Name -> column (N,): the factors measured from the pictures of a split."""
    chunks = [appearance(split.batch(rows).x.cpu().numpy()) for rows in torch.arange(len(split)).split(CHUNK)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
