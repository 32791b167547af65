"""A benchmark: every method trained under one budget and compared with features that need no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from diffrep import config
from diffrep.budget import Budget
from diffrep.config import Settings
from diffrep.data import Examples, Splits
from diffrep.errors import UserError, unknown
from diffrep.measures.evaluate import codes, probe_splits
from diffrep.methods.catalog import METHODS, build
from diffrep.probes.protocols import protocols
from diffrep.probes.references import PCA, PIXELS, RANDOM, references
from diffrep.probes.result import Result
from diffrep.progress import Progress, silent
from diffrep.runs import records
from diffrep.runs.directory import DataCard
from diffrep.runs.summary import Numbers, accuracies, changed
from diffrep.studies.aggregate import groups, mean_and_error
from diffrep.studies.plan import plan
from diffrep.studies.row import Question, Row, StudyFile, rows_of
from diffrep.studies.study import FEW, Cuts, Watch, silence, study, unwatched, write_files

BENCHMARK = "benchmark.json"
UNTRAINED = (PIXELS, PCA, RANDOM)
ENCODER = "ae"  # the method whose encoder, before training, is the random one
RESERVE = 0.4  # of a total time, for evaluation


@dataclass(frozen=True)
class Design:
    """Which runs a benchmark makes.

    methods: names of methods and of pixels, pca, random-encoder; None: all that have a code, and these three. seeds:
    runs of each. changes: settings of all runs. levels: noise levels of each test example in the bound.
    """

    methods: Sequence[str] | None = None
    seeds: int = 3
    changes: Sequence[str] = ()
    levels: int = 8


USUAL = Design()


def benchmark(
    data: str,
    directory: str | Path,
    design: Design = USUAL,
    *,
    budget: str | None = None,
    total: str | None = None,
    say: Callable[[str], None] = silence,
    watch: Watch = unwatched,
) -> StudyFile:
    """Train and judge methods on data -> DIR/benchmark.json, table.md, .csv and .tex; returns the first.

    budget: of each run, in seconds or examples; or total: seconds for all, shared equally after a reserve for the
    evaluation. Goes on where it was stopped. A method that fails is a row with its reason. UserError: a name or a
    budget that cannot be, no labels, no method that can be judged.
    """
    budget_of_each(budget, total, 1)
    able = {**METHODS, **dict.fromkeys(UNTRAINED)}
    for name in design.methods or ():
        if name not in able:
            raise unknown("method", name, able)
    directory, cuts = Path(directory), Cuts()
    first = config.override(Settings(), [*design.changes, f"data.source={data}"])
    splits = cuts.of(first)
    splits.train.require_labels()
    names, failed = _methods(design.methods, first, splits)
    if not names:
        raise UserError(next(iter(failed.values())))
    trained = [name for name in names if name not in UNTRAINED]
    chosen = budget_of_each(budget, total, len(trained) * design.seeds)
    content: StudyFile = {"settings": {}, "runs": []}
    if trained:
        written = plan(
            {
                "name": "benchmark",
                "about": f"{first.data.source if not Path(data).exists() else Path(data).name}, {chosen} for each run.",
                "data": data,
                "budget": chosen,
                "seeds": list(range(design.seeds)),
                "set": list(design.changes),
                "measure": ["bound", "probes"],
                "levels": design.levels,
                "runs": [{"name": name, "method": name} for name in trained],
            },
            "the benchmark",
        )
        content = study(written, directory, say=say, watch=watch, tables=False)
    former = {row.run: row for row in rows_of(cast(StudyFile, records.read(directory / BENCHMARK)))}
    rows = rows_of(content)
    for seed in range(design.seeds):
        here = config.override(first, [f"seed={seed}"])
        rows += _references([n for n in names if n in UNTRAINED], here, cuts, former, watch)
    rows += [_row(name, seed, error=reason) for name, reason in failed.items() for seed in range(design.seeds)]
    in_order = [row.written() for row in _sorted(rows)]
    whole: StudyFile = {**content, "study": "benchmark", "budget": chosen, "runs": in_order}
    write_files(directory, BENCHMARK, whole, "Benchmark")
    return whole


def _methods(asked: Sequence[str] | None, settings: Settings, splits: Splits) -> tuple[list[str], dict[str, str]]:
    """The names to be judged, and method -> reason of those that make no model here."""
    facts = DataCard.of(splits).facts(splits.train)
    names, failed = list(dict.fromkeys(asked or [*METHODS, *UNTRAINED])), {}
    kept = []
    for name in names:
        try:
            if name in UNTRAINED or build(config.override(settings, [f"method={name}"]), facts, warn=False).has_code:
                kept.append(name)
            elif asked:
                raise UserError(f"{name} has no code to judge; leave it out.")
        except UserError as reason:
            failed[name] = str(reason)
    return kept, failed


def budget_of_each(budget: str | None, total: str | None, runs: int) -> str:
    """The budget of each run."""
    if (budget is None) == (total is None):
        raise UserError("expected a budget for each run or a total for all, one of the two, such as --budget 60s.")
    if budget is not None:
        return str(Budget.parse(budget))
    whole = Budget.parse(str(total))
    if whole.unit != "seconds":
        raise UserError(f"expected a total in time, such as 30m, got {total}; for examples give a --budget.")
    return f"{max(1, int(whole.amount * (1 - RESERVE) / max(runs, 1)))}s"


def _references(names: list[str], settings: Settings, cuts: Cuts, former: dict[str, Row], watch: Watch) -> list[Row]:
    """Rows of features that need no training, on the data as this seed cuts it; former rows are kept."""
    if not names:
        return []
    splits = cuts.of(settings)
    encoder = config.override(settings, [f"method={ENCODER}"])
    question = Question(settings=changed(encoder))
    rows = [former[key] for name in names if (key := f"{name}-seed{settings.seed}") in former]
    of_these = [row for row in rows if row.fingerprint == splits.test.fingerprint and row.answers(question)]
    if len(of_these) == len(names):
        return of_these
    model = build(encoder, DataCard.of(splits).facts(splits.train), warn=False).eval()
    probed = probe_splits(splits)
    features = references(probed, settings.code.size(splits.train.shape), lambda split: codes(model, split))
    made = []
    for name in names:
        with watch() as progress:
            results = _probed(features[name].of_splits, probed, ("linear", "knn", "few"), progress)
        made.append(
            _row(
                name,
                settings.seed,
                numbers=Numbers(**accuracies(results, ("linear", "knn", "few-1", "few-10"))),
                fingerprint=splits.test.fingerprint,
                question=replace(question, dim=features[name].dim),
            )
        )
    return made


def _probed(
    features: Sequence[np.ndarray], splits: Sequence[Examples], names: Sequence[str], progress: Progress = silent
) -> dict[str, Result]:
    """Protocol -> result on features (N, d) of train, valid and test; "no_probe" says why there is none.

    names: as of `protocols`. Empty without labels.
    """
    try:
        labels = [split.require_labels().cpu().numpy() for split in splits]
    except UserError:
        return {}
    train, valid, test = zip(features, labels, strict=True)
    results: dict[str, Result] = {}
    for name, protocol in protocols(names, FEW if "few" in names else ()).items():
        progress(f"{name} probe", 0, None)
        try:
            results[name] = protocol.measure(train, valid, test)
        except UserError as no_probe:
            results[name] = {"no_probe": str(no_probe)}
    return results


def _row(name: str, seed: int, **more: Any) -> Row:
    """A row of features that need no training, or of a method that failed."""
    return Row(run=f"{name}-seed{seed}", name=name, method=name, code=True, seed=seed, axes={}, **more)


def _sorted(rows: Sequence[Row]) -> list[Row]:
    """By the mean of the linear probe over seeds, best first; rows without one last."""

    def score(group: list[Row]) -> float:
        mean, _ = mean_and_error(row.numbers.probe_linear for row in group)
        return -1.0 if mean is None else mean

    return [row for group in sorted(groups(rows), key=score, reverse=True) for row in group]
