"""Runs of a study, trained and measured one after another, with its results written after each."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch

from diffrep import config, runs
from diffrep.amounts import amount
from diffrep.config import Settings
from diffrep.data import Splits
from diffrep.errors import UserError, lacks_memory, unknown
from diffrep.evaluation.feature_networks import public
from diffrep.files import sealed, write_bytes
from diffrep.measures import evaluate
from diffrep.measures.distance import distance
from diffrep.measures.factors import factors
from diffrep.measures.probe import Probing, probe
from diffrep.measures.profile import profile
from diffrep.progress import Progress, silent
from diffrep.runs import records, summary
from diffrep.runs.directory import FREE, SETTINGS, DataCard
from diffrep.runs.lock import locked
from diffrep.runs.run import Run
from diffrep.studies.aggregate import table
from diffrep.studies.figures import frontier, probe_bars
from diffrep.studies.plan import Plan, Planned, expand
from diffrep.studies.row import Question, Row, StudyFile, rows_of
from diffrep.studies.table import files

RESULTS, RUNS = "study.json", "runs"
FEW = (1, 10)  # labels of each class
SAMPLES = 2_000  # compared with as many test examples
PROFILED = 2_000  # test examples in an information profile


Watch = Callable[[], AbstractContextManager[Progress]]  # opens a progress bar for what is measured


def silence(text: str) -> None:
    """Prints nothing."""


def unwatched() -> AbstractContextManager[Progress]:
    """Shows no bar."""
    return nullcontext(silent)


@dataclass
class Cuts:
    """The data of a study as each seed cuts it; the last cut is kept."""

    held: dict[str, Splits] = field(default_factory=dict)

    def of(self, settings: Settings) -> Splits:
        key = f"{settings.seed} {settings.data.model_dump_json()}"
        if key not in self.held:
            self.held = {key: runs.splits_of(settings)}
        return self.held[key]


def study(
    plan: Plan,
    directory: str | Path,
    only: str | None = None,
    say: Callable[[str], None] = silence,
    watch: Watch = unwatched,
    tables: bool = True,
) -> StudyFile:
    """Make and measure every run of a plan that is not there yet -> the content of DIR/study.json.

    Runs are in DIR/runs; study.json, the figures and (`tables`) table.md, .csv and .tex are written after each. A run
    with a result for the same settings and measures is not repeated; a stopped one continues. A run that fails is a row
    with its reason under "error". only: the name of one run of the plan, made with its twins. KeyboardInterrupt: a
    stop, after which the same call continues. UserError: a mistake in the plan, a directory that holds runs of other
    settings, or that another process writes to.
    """
    directory, cuts = Path(directory), Cuts()
    first = cuts.of(_any_settings(plan))
    planned = expand(plan, DataCard.of(first).facts())
    asked = chosen(planned, only)
    with locked(directory):
        for run in planned:
            _same_settings(run, directory / RUNS / run.folder)
        rows = _former(directory, planned, plan)
        left = [run for run in asked if run.folder not in rows]
        if len(left) < len(asked):
            say(f"There already: {len(asked) - len(left)} of {amount(len(asked), 'run')}.")
        began = time.monotonic()
        for number, run in enumerate(left):
            spent = (time.monotonic() - began) / 60
            time_left = f", about {spent / number * (len(left) - number):.0f} min left" if number else ""
            say(f"run {number + 1} of {len(left)}: {run.folder}{time_left}")
            rows[run.folder] = _row(run, plan, directory / RUNS / run.folder, cuts, watch)
            if reason := rows[run.folder].error:
                say(f"{run.folder} failed: {reason}")
            _write(plan, directory, [rows[p.folder] for p in planned if p.folder in rows], tables)
        return _write(plan, directory, [rows[p.folder] for p in planned if p.folder in rows], tables)


def _row(run: Planned, plan: Plan, directory: Path, cuts: Cuts, watch: Watch) -> Row:
    """The row of a run, which is trained to its budget and measured."""
    row = _head(run, plan)
    try:
        splits = cuts.of(run.settings)
        made = runs.train(run.settings, directory, splits=splits)
        if made.result is not None and made.result.interrupted:
            raise KeyboardInterrupt
        with watch() as progress:
            missing = measure(made, splits, plan.measure, plan.levels, plan.features, plan.refine, progress)
        return replace(
            row,
            numbers=summary.numbers(directory),
            factors=summary.factors(directory),
            missing=missing,
            fingerprint=made.card.fingerprints["test"],
        )
    except (UserError, MemoryError, RuntimeError) as error:
        if not isinstance(error, UserError) and not lacks_memory(error):
            raise  # a mistake of ours, and no property of the run
        return replace(
            row, error=(str(error).splitlines() or ["memory ran out"])[0].replace(str(directory), run.folder)
        )


def _head(run: Planned, plan: Plan) -> Row:
    """The row of a run that has no numbers yet."""
    return Row(
        run=run.folder,
        name=run.name,
        method=run.settings.method,
        code=run.code,
        seed=run.settings.seed,
        axes=run.axes,
        twin=run.twin,
        question=Question(
            measure=list(plan.measure),
            levels=plan.levels,
            features=public(plan.features),
            refine=plan.refine if plan.refine and run.code else None,
            settings=summary.changed(run.settings),
        ),
    )


def _former(directory: Path, planned: Sequence[Planned], plan: Plan) -> dict[str, Row]:
    """Folder -> row of the planned runs that have results for the same settings and measures."""
    file = cast(StudyFile, records.read(directory / RESULTS))
    rows = {row.run: row for row in rows_of(file)}
    heads = {run.folder: _head(run, plan) for run in planned}
    return {
        folder: replace(
            rows[folder], **{name: getattr(head, name) for name in ("name", "method", "code", "axes", "twin")}
        )
        for folder, head in heads.items()
        if folder in rows and rows[folder].answers(head.question)
    }


def measure(
    run: Run,
    splits: Splits,
    wanted: Sequence[str],
    levels: int = 8,
    features: str = "pixels",
    refine: int = 0,
    progress: Progress = silent,
) -> dict[str, str]:
    """Measure bound, rate, linear and kNN probe, and what is `wanted`; returns name -> reason of what is missing.

    wanted: "probes" (with few labels), "information", "distance" (of samples, by `features`), "factors" (that the data
    names), "appearance" (factors that its pictures show). A model without a code has a bound and a distance alone.
    refine: gradient steps that refine codes, 0 for none. Each result is a file of the run's directory.
    """
    missing: dict[str, str] = {}
    metrics = evaluate.evaluate(run, splits, levels, refine=refine if run.model.has_code else 0, progress=progress)
    if "no_refined" in metrics:
        missing["refined codes"] = metrics["no_refined"]
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
            probe(run, splits, Probing(names=("few",), few=FEW), beside=False, progress=progress)
    named = "factors" in wanted
    with _noting(missing, "appearance"):
        if "appearance" in wanted:
            factors(run, splits, named, measured=True, progress=progress)
            named = False
    with _noting(missing, "factors"):
        if named:
            factors(run, splits, progress=progress)
    return missing


@contextmanager
def _noting(missing: dict[str, str], what: str) -> Iterator[None]:
    """Turns a UserError inside the `with` block into an entry of `missing`."""
    try:
        yield
    except UserError as reason:
        missing[what] = str(reason)


def _same_settings(run: Planned, directory: Path) -> None:
    """UserError where the folder holds a run of other settings; data is compared in training."""
    if not (directory / SETTINGS).is_file():
        return
    was = config.load(directory / SETTINGS)
    for name in config.names():
        free = name in {f"train.{key}" for key in FREE if key != "budget"} | {"data.source"}
        if not free and (before := config.value(was, name)) != (now := config.value(run.settings, name)):
            raise UserError(
                f"{directory} was trained with {name}={before} and the study now asks for {now}: give the study a new"
                " folder with -o, or remove that run."
            )


def chosen(planned: list[Planned], only: str | None) -> list[Planned]:
    """The runs of that name or folder with their twins; all where there is no name, UserError where none has it."""
    if only is None:
        return planned
    asked = [run for run in planned if only in (run.name, run.folder)]
    if not asked:
        raise unknown("run of the study", only, dict.fromkeys(run.name for run in planned))
    wanted = {run.folder for run in asked} | {run.twin for run in asked}
    return [run for run in planned if run.folder in wanted]


def _any_settings(plan: Plan) -> Settings:
    """The settings of the first seed, for the data."""
    words = [f"data.source={plan.data}", f"seed={plan.seeds[0]}"]
    return config.override(Settings(), [*plan.changes, *words])


def _write(plan: Plan, directory: Path, rows: list[Row], tables: bool) -> StudyFile:
    """study.json, figures and tables; returns the first."""
    settings = plan.model_dump(mode="json", by_alias=True)
    content: StudyFile = {
        "study": plan.name,
        "about": plan.about,
        "settings": {**settings, "data": Path(plan.data).name, "features": public(plan.features)},
        "commit": commit(),
        "hardware": hardware(),
        "runs": [row.written() for row in rows],
    }
    write_files(directory, RESULTS, content, plan.name if tables else None)
    for name, picture in {"frontier.png": frontier(rows), "probes.png": probe_bars(rows)}.items():
        if picture is not None:
            write_bytes(directory / name, picture)
    return content


def write_files(directory: Path, name: str, content: StudyFile, title: str | None) -> None:
    """The JSON file of that name; with a title, table.md, .csv and .tex beside it."""
    texts = {name: sealed(content).decode()}
    if title is not None:
        about = content.get("about")
        texts |= files(table(rows_of(content)), f"# {title}\n\n{about}\n\n" if about else f"# {title}\n\n")
    for file, text in texts.items():
        write_bytes(directory / file, text.encode())


def commit() -> str | None:
    """The last commit that changed this package, with "-dirty" where changes of it are not committed.

    None where it is in no checkout.
    """
    here = str(Path(__file__).parents[1])  # all of diffrep, not the folder of studies alone

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", here, *words, "--", here], capture_output=True, text=True, timeout=10
        ).stdout

    try:
        last = git("log", "-1", "--format=%h").strip()
        return last + "-dirty" * bool(git("status", "--porcelain")) if last else None
    except (OSError, subprocess.TimeoutExpired):
        return None


def hardware() -> dict[str, str | int]:
    """A description of the machine without its name."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    system = f"{platform.system()} {platform.machine()}"
    threads = torch.get_num_threads()
    return {"system": system, "cpus": os.cpu_count() or 1, "threads": threads, "torch": torch.__version__, **gpu}
