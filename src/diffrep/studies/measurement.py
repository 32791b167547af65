"""What a study measures of a run: the bound and more, each in a file of the run's directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from diffrep.data import Examples, Splits
from diffrep.errors import UserError
from diffrep.measures import evaluate
from diffrep.measures.distance import distance
from diffrep.measures.probe import CODE, probe
from diffrep.measures.profile import profile
from diffrep.measures.stored_codes import stored_codes
from diffrep.probes.appearance import appearance
from diffrep.probes.factors import probe_factors
from diffrep.probes.protocols import protocols
from diffrep.progress import Progress, counting, silent
from diffrep.runs.records import FACTORS, FEATURES
from diffrep.runs.run import Run

FEW = (1, 10)  # labels of each class
MOST = 20_000  # training examples whose codes are probed
SAMPLES = 2_000  # held against as many test examples
PROFILED = 2_000  # test examples in an information profile
CHUNK = 500  # pictures in memory at once


def measure(
    run: Run,
    splits: Splits,
    wanted: Sequence[str],
    levels: int = 8,
    features: str = "pixels",
    refine: int = 0,
    progress: Progress = silent,
) -> dict[str, str]:
    """Bound, rate, linear and kNN probe always; of few labels, information, distance, factors what is wanted.

    wanted: "probes" (with few labels), "information", "distance" (of samples, seen with `features`), "factors" (that
    the data name), "appearance" (factors that its pictures show; one that the data name goes before one shown). Where
    there is no code there are a bound and a distance alone. refine: gradient steps that refine codes, 0 for none.
    Returns what could not be measured, and why.
    """
    missing: dict[str, str] = {}
    said = evaluate.evaluate(run, splits, levels, refine=refine if run.model.has_code else 0, progress=progress)
    if "no_refined" in said:
        missing["refined codes"] = said["no_refined"]
    with _noting(missing, "distance"):
        if "distance" in wanted:
            distance(run, features, SAMPLES, splits, progress=progress)
    if not run.model.has_code:
        return missing
    with _noting(missing, "information"):
        if "information" in wanted:
            profile(run, splits, most=PROFILED, progress=progress)
    with _noting(missing, "probes"):
        if "probes" in wanted:
            probe(run, splits, names=("few",), few=FEW, most=MOST, beside=False, progress=progress)
    parts = cut(splits)
    factors = [part.factors if "factors" in wanted else {} for part in parts]
    with _noting(missing, "appearance"):
        if "appearance" in wanted:
            factors = [{**named, **_appearance(part), **named} for part, named in zip(parts, factors, strict=True)]
    with _noting(missing, "factors"):
        if factors[0]:
            count = counting("codes", sum(map(len, parts)), progress)
            codes = [stored_codes(run.directory / FEATURES, CODE, run.model, part, progress=count) for part in parts]
            progress("factors", 0, None)
            train, valid, test = zip(codes, factors, strict=True)
            run.keep(FACTORS, {"factors": probe_factors(train, valid, test)})
    return missing


@contextmanager
def _noting(missing: dict[str, str], what: str) -> Iterator[None]:
    """Notes under `what` why it cannot be measured, and goes on."""
    try:
        yield
    except UserError as reason:
        missing[what] = str(reason)


def _appearance(part: Examples) -> dict[str, np.ndarray]:
    """Name -> column (N,): what the pictures of a split show."""
    chunks = [appearance(part.batch(rows).x.cpu().numpy()) for rows in torch.arange(len(part)).split(CHUNK)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def cut(splits: Splits) -> list[Examples]:
    """Train, valid, test, of the first at most MOST examples, labelled ones first."""
    train = splits.train
    return [train.subset(train.labelled_first(MOST)) if len(train) > MOST else train, splits.valid, splits.test]


def probed(
    features: Sequence[np.ndarray], parts: Sequence[Examples], names: Sequence[str], progress: Progress = silent
) -> dict[str, dict]:
    """Protocol -> result on features (N, d) of train, valid and test; "no_probe" says why where it cannot be.

    names: as of `protocols`; few is with 1 and with 10 labels of each class. Nothing where there are no labels.
    """
    try:
        labels = [part.require_labels().cpu().numpy() for part in parts]
    except UserError:
        return {}
    train, valid, test = zip(features, labels, strict=True)
    results: dict[str, dict] = {}
    for name, protocol in protocols(names, FEW if "few" in names else ()).items():
        progress(f"{name} probe", 0, None)
        try:
            results[name] = protocol.measure(train, valid, test)
        except UserError as no_probe:
            results[name] = {"no_probe": str(no_probe)}
    return results
