"""Runs side by side in one table, from the files in their directories."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffrep import runs
from diffrep.errors import UserError
from diffrep.evaluation.information import not_profiled
from diffrep.progress import Progress, silent
from diffrep.runs import summary
from diffrep.runs.card import form
from diffrep.runs.directory import read_card, settings_of
from diffrep.runs.records import METRICS, PROFILE, current
from diffrep.runs.summary import COLUMNS, Column, Numbers
from diffrep.studies.study import measure
from diffrep.studies.table import Cell, Number, Table


@dataclass(frozen=True)
class Side:
    """A run with its numbers, and the conditions that must agree for a comparison."""

    run: str
    method: str
    seed: int
    numbers: Numbers
    fingerprint: str
    protocol: str | None
    levels: int | None
    features: str | None
    refined: str | None

    def written(self) -> dict[str, Any]:
        """An object of JSON without nesting."""
        content: dict[str, Any] = {}
        for name, value in asdict(self).items():
            content |= value if name == "numbers" else {name: value}
        return content


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, and a sentence for each reason why their numbers do not compare. unmeasured: a sentence for
    each run that nobody has evaluated."""

    runs: tuple[Side, ...]
    notes: tuple[str, ...]
    unmeasured: tuple[str, ...] = ()

    def written(self) -> dict[str, Any]:
        """What `diffrep compare --json` prints."""
        return {"runs": [side.written() for side in self.runs], "notes": [*self.notes, *self.unmeasured]}


def compare(
    directories: Sequence[str | Path], measured: bool = False, device: str = "auto", progress: Progress = silent
) -> Comparison:
    """Each run with its numbers, None where its directory does not have them.

    measured: first measure the bound, probes and information that a run lacks. A note says where test examples,
    protocols or noise levels differ, so that numbers do not compare. UserError: no run, data of another shape.
    """
    places = [Path(directory) for directory in directories]
    if len(places) < 2 or len(set(places)) < len(places):
        raise UserError(f"expected two different runs or more, got {', '.join(map(str, places))}.")
    cards = [(settings_of(place), read_card(place)) for place in places]
    shapes = [form(card.shape, card.bins) for _, card in cards]
    for place, shape in zip(places, shapes, strict=True):
        if shape != shapes[0]:
            raise UserError(
                f"{places[0]} was trained on {shapes[0]} data and {place} on {shape}, so their numbers do not compare;"
                " name runs on the same data."
            )
    if measured:
        for place in places:
            _complete(place, device, progress)
    sides = []
    for place, name, (settings, card) in zip(places, _names(places), cards, strict=True):
        metrics = current(place)[METRICS]
        sides.append(
            Side(
                run=name,
                method=settings.method,
                seed=settings.seed,
                numbers=summary.numbers(place),
                fingerprint=card.fingerprints["test"],
                protocol=metrics.get("protocol"),
                levels=metrics.get("levels"),
                features=summary.distance_protocol(place),
                refined=summary.refined_with(place),
            )
        )
    unmeasured = [
        f"{name} is not measured yet: `diffrep evaluate {shlex.quote(str(place))}` does so."
        for place, name in zip(places, _names(places), strict=True)
        if not current(place)[METRICS]
    ]
    return Comparison(tuple(sides), tuple(_notes(sides)), tuple(unmeasured))


def table(compared: Comparison) -> Table:
    """The runs as a table; if they are comparable, the best number is bold where its interval overlaps no other."""
    columns = {**COLUMNS, "examples": Column("examples seen", 0)}
    lines: list[tuple[Cell, ...]] = []
    for side in compared.runs:
        own = side.numbers
        cells = (
            Number(own.value(name), own.value(f"{name}_se"), c.digits, ends=own.ends(name))
            for name, c in columns.items()
        )
        lines.append((side.run, side.method, str(side.seed), *cells))
    note = (
        "± standard error over test examples (of an accuracy half of Wilson's interval), of few labels over draws too."
        " -: not measured, or there is none."
    )
    headings = ("run", "method", "seed", *(column.heading for column in columns.values()))
    shown = Table(headings, tuple(lines), (note, *compared.notes, *compared.unmeasured))
    return shown if compared.notes else shown.best_in_bold(columns.values())


def _complete(directory: Path, device: str, progress: Progress) -> None:
    """Measure the numbers that a run lacks, but for those that it cannot have."""
    results = current(directory)
    metrics, run = results[METRICS], runs.load(directory, device)
    lacking = []
    if not metrics.get("probes") and "no_probe" not in metrics:
        lacking.append("probes")
    if not results[PROFILE] and not_profiled(run.model) is None:
        lacking.append("information")
    if not metrics or (lacking and run.model.has_code):
        as_before = {"levels": metrics.get("levels", 8), "refine": metrics.get("refined", {}).get("steps", 0)}
        measure(run, run.splits(), lacking, **as_before, progress=progress)


def _names(places: Sequence[Path]) -> list[str]:
    """The last component of each path; the whole path where two are the same."""
    count = Counter(place.name for place in places)
    return [place.name if count[place.name] == 1 else str(place) for place in places]


def _notes(sides: Sequence[Side]) -> list[str]:
    """The reasons why the runs are not comparable, a sentence each."""
    reasons: list[tuple[str, Callable[[Side], object]]] = [
        ("test examples (by their fingerprint)", lambda side: side.fingerprint),
        ("protocols", lambda side: side.protocol),
        ("numbers of noise levels in the bound", lambda side: side.levels),
        ("features of the Frechet distance", lambda side: side.features),
        ("steps that refined codes", lambda side: side.refined),
    ]
    notes = []
    for what, of in reasons:
        values = {side.run: of(side) for side in sides if of(side) is not None}
        if len(set(values.values())) > 1:
            each = ", ".join(f"{run} {value}" for run, value in values.items())
            notes.append(f"The {what} differ, so nothing is in bold: {each}.")
    return notes
