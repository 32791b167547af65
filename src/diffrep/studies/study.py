"""A study carried out: its runs made and measured one after another, and its results on disk after each."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from diffrep import config, runs
from diffrep.config import Settings
from diffrep.data import Splits
from diffrep.errors import UserError, unknown
from diffrep.evaluation.feature_networks import public
from diffrep.files import write_bytes
from diffrep.progress import Progress, silent
from diffrep.runs import records, summary
from diffrep.runs.run import FREE, SETTINGS, DataCard
from diffrep.studies.aggregate import table
from diffrep.studies.figures import frontier, probe_bars
from diffrep.studies.measurement import measure
from diffrep.studies.plan import Plan, Planned, expand
from diffrep.studies.table import files

RESULTS, RUNS = "study.json", "runs"


Watch = Callable[[], AbstractContextManager[Progress]]  # opens a progress bar for what is measured


def silence(text: str) -> None:
    """Lines that nobody reads."""


def unwatched() -> AbstractContextManager[Progress]:
    """No bar."""
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
) -> dict:
    """Make and measure every run of a plan that is not there yet -> the content of DIR/study.json.

    Runs stand in DIR/runs; study.json, table.md, table.csv, table.tex and the figures are written after each. A run
    whose result is there, with the same settings and measures, is not repeated; one that was stopped goes on. A run
    that fails is a row with its reason under "error". only: the name of one run of the plan, made with its twins.
    KeyboardInterrupt: a stop, after which the same call goes on. UserError: a mistake in the plan, or a directory that
    holds runs of other settings.
    """
    directory, cuts = Path(directory), Cuts()
    first = cuts.of(_any_settings(plan))
    planned = expand(plan, DataCard.of(first).facts(first.train.histogram()))
    asked = chosen(planned, only)
    rows = {row["run"]: row for row in records.read(directory / RESULTS).get("runs", [])}
    for run in planned:
        _same_settings(run, directory / RUNS / run.folder)
    rows = {run.folder: rows[run.folder] | _head(run) for run in planned if _done(rows.get(run.folder), run, plan)}
    left = [run for run in asked if run.folder not in rows]
    if len(left) < len(asked):
        say(f"{len(asked) - len(left)} of {len(asked)} runs are there already.")
    began = time.monotonic()
    for number, run in enumerate(left):
        spent = (time.monotonic() - began) / 60
        time_left = f", about {spent / number * (len(left) - number):.0f} min left" if number else ""
        say(f"run {number + 1} of {len(left)}: {run.folder}{time_left}")
        rows[run.folder] = _row(run, plan, directory / RUNS / run.folder, cuts, watch)
        if reason := rows[run.folder]["error"]:
            say(f"{run.folder} failed: {reason}")
        _write(plan, directory, [rows[p.folder] for p in planned if p.folder in rows])
    return _write(plan, directory, [rows[p.folder] for p in planned if p.folder in rows])


def _row(run: Planned, plan: Plan, directory: Path, cuts: Cuts, watch: Watch) -> dict:
    """What study.json says of a run: trained to its budget from where it is, then measured."""
    row = (
        _head(run) | dict.fromkeys(summary.NUMBERS) | {"factors": {}, "missing": {}, "error": None, "fingerprint": None}
    )
    try:
        splits = cuts.of(run.settings)
        made = runs.train(run.settings, directory, splits=splits)
        if made.result is not None and made.result.interrupted:
            raise KeyboardInterrupt
        with watch() as progress:
            row["missing"] = measure(made, splits, plan.measure, plan.levels, plan.features, plan.refine, progress)
        row |= summary.numbers(directory) | {"factors": summary.factors(directory)}
        row["fingerprint"] = made.card.fingerprints["test"]
    except (UserError, RuntimeError) as error:  # the latter: out of memory, or a model that meets data it cannot take
        row["error"] = str(error).splitlines()[0].replace(str(directory), run.folder)
    return row | _asked(run, plan)


def _head(run: Planned) -> dict:
    return {
        "run": run.folder,
        "name": run.name,
        "method": run.settings.method,
        "code": run.code,
        "seed": run.settings.seed,
        "axes": run.axes,
        "twin": run.twin,
    }


def _done(row: dict | None, run: Planned, plan: Plan) -> bool:
    """Is the result of a run there, with these settings and measures?"""
    if row is None or row.get("error"):
        return False
    return all(row.get(key) == value for key, value in _asked(run, plan).items())


def _asked(run: Planned, plan: Plan) -> dict:
    """What was asked for; a row that says the same need not be made again."""
    measured = {"measure": list(plan.measure), "levels": plan.levels, "features": public(plan.features)}
    refined = {"refine": plan.refine} if plan.refine and run.code else {}
    return {**measured, **refined, "settings": summary.changed(run.settings)}


def _same_settings(run: Planned, directory: Path) -> None:
    """UserError where the folder of a run holds one of other settings; its data is compared when it is trained."""
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
    """Those that say what the data is: of the first seed."""
    words = [f"data.source={plan.data}", f"seed={plan.seeds[0]}"]
    return config.override(Settings(), [*plan.changes, *words])


def _write(plan: Plan, directory: Path, rows: list[dict]) -> dict:
    """study.json, tables and figures; returns the first."""
    settings = plan.model_dump(mode="json", by_alias=True)
    content = {
        "study": plan.name,
        "about": plan.about,
        "settings": {**settings, "data": Path(plan.data).name, "features": public(plan.features)},
        "commit": commit(),
        "hardware": hardware(),
        "runs": rows,
    }
    title = f"# {plan.name}\n\n{plan.about}\n\n" if plan.about else f"# {plan.name}\n\n"
    texts = {RESULTS: json.dumps(content, indent=2) + "\n", **files(table(rows), title)}
    for name, text in texts.items():
        write_bytes(directory / name, text.encode())
    for name, picture in {"frontier.png": frontier(rows), "probes.png": probe_bars(rows)}.items():
        if picture is not None:
            write_bytes(directory / name, picture)
    return content


def commit() -> str | None:
    """The commit of the checkout that this package is in; None where it is in none."""
    here = Path(__file__).parent
    try:
        words = ["git", "-C", str(here), "log", "-1", "--format=%h", "--", str(here)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def hardware() -> dict[str, str | int]:
    """The machine in words that do not name it."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    system = f"{platform.system()} {platform.machine()}"
    threads = torch.get_num_threads()
    return {"system": system, "cpus": os.cpu_count() or 1, "threads": threads, "torch": torch.__version__, **gpu}
