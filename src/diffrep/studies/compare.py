"""Runs side by side in one table, from what their directories say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from diffrep import runs
from diffrep.errors import UserError
from diffrep.evaluation.information import profiled
from diffrep.models.base import Model
from diffrep.progress import Progress, silent
from diffrep.runs import summary
from diffrep.runs.records import METRICS, PROFILE, current
from diffrep.runs.run import form, read_card
from diffrep.studies.aggregate import COLUMNS
from diffrep.studies.measurement import measure
from diffrep.studies.table import Number, Table


def compare(
    directories: Sequence[str | Path], measured: bool = False, device: str = "auto", progress: Progress = silent
) -> dict:
    """{"runs": rows, "notes": sentences}: a row for each run, its numbers None where its directory does not have them.

    measured: measure first what a run lacks of bound, probes and information. A note says where test examples,
    protocols or noise levels differ, so that numbers do not compare. UserError: no run, data of another shape.
    """
    places = [Path(directory) for directory in directories]
    if len(places) < 2 or len(set(places)) < len(places):
        raise UserError(f"expected two different runs or more, got {', '.join(map(str, places))}.")
    cards = [(summary.settings_of(place), read_card(place)) for place in places]
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
    names = _names(places)
    rows = []
    for place, name, (settings, card) in zip(places, names, cards, strict=True):
        metrics = current(place)[METRICS]
        rows.append(
            {
                "run": name,
                "method": settings.method,
                "seed": settings.seed,
                **summary.numbers(place),
                "fingerprint": card.fingerprints["test"],
                "protocol": metrics.get("protocol"),
                "levels": metrics.get("levels"),
                "features": summary.seen_with(place),
                "refined": summary.refined_with(place),
            }
        )
    return {"runs": rows, "notes": _notes(rows)}


def table(compared: dict) -> Table:
    """The rows as a table; where they compare, the best number in bold if its interval of two errors meets no other."""
    rows = compared["runs"]
    keys = [(name, key, digits) for name, key, digits, _ in COLUMNS] + [("examples seen", "examples", 0)]
    lines = tuple(
        (
            row["run"],
            row["method"],
            str(row["seed"]),
            *(Number(row[key], row.get(f"{key}_se"), n) for _, key, n in keys),
        )
        for row in rows
    )
    note = (
        "± standard error over test examples, of probes with few labels over draws. -: not measured, or there is none."
    )
    found = Table(("run", "method", "seed", *(name for name, *_ in keys)), tuple(lines), (note, *compared["notes"]))
    for name, _, _, lowest in COLUMNS:
        found = found if lowest is None or compared["notes"] else found.emphasised(name, lowest)
    return found


def _complete(directory: Path, device: str, progress: Progress) -> None:
    """Measure a run that has not been, or not all of it; what can never be had of it is not tried again and again."""
    known = current(directory)
    metrics, run = known[METRICS], runs.load(directory, device)
    lacking = []
    if not metrics.get("probes") and "no_probe" not in metrics:
        lacking.append("probes")
    if not known[PROFILE] and _can_be_profiled(run.model):
        lacking.append("information")
    if not metrics or (lacking and run.model.has_code):
        as_before = {"levels": metrics.get("levels", 8), "refine": metrics.get("refined", {}).get("steps", 0)}
        measure(run, run.splits(), lacking, **as_before, progress=progress)


def _can_be_profiled(model: Model) -> bool:
    try:
        profiled(model)
    except UserError:
        return False
    return True


def _names(places: Sequence[Path]) -> list[str]:
    """The last part of each path, with the parts before it where two are the same."""
    count = Counter(place.name for place in places)
    return [place.name if count[place.name] == 1 else str(place) for place in places]


def _notes(rows: Sequence[dict]) -> list[str]:
    """What keeps the rows from being compared, a sentence for each reason."""
    reasons: list[tuple[str, Callable[[dict], object]]] = [
        ("test examples (by their fingerprint)", lambda row: row["fingerprint"]),
        ("protocols", lambda row: row["protocol"]),
        ("numbers of noise levels in the bound", lambda row: row["levels"]),
        ("features of the Frechet distance", lambda row: row["features"]),
        ("steps that refined codes", lambda row: row["refined"]),
    ]
    notes = []
    for what, of in reasons:
        values = {row["run"]: of(row) for row in rows if of(row) is not None}
        if len(set(values.values())) > 1:
            said = ", ".join(f"{run} {value}" for run, value in values.items())
            notes.append(f"The {what} differ, so nothing is in bold: {said}.")
    return notes
