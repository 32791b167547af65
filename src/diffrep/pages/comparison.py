"""Many runs as one page: their table, what they cost and what simple models read from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from diffrep.files import write_bytes
from diffrep.pages import svg
from diffrep.pages.page import Page, Section, code, details, facts, figure, joined, table
from diffrep.studies.aggregate import groups, mean_and_error
from diffrep.studies.table import Number, Table

PROBES = {
    "probe_linear": "linear",
    "probe_knn": "nearest neighbours",
    "probe_few1": "1 label a class",
    "probe_few10": "10 labels a class",
}


def comparison(
    path: str | Path,
    title: str,
    about: str,
    shown: Table,
    runs: Sequence[Mapping],
    commands: Sequence[str] = (),
    made_with: Mapping[str, object] | None = None,
) -> Path:
    """Write a page about several runs to `path`, and return it.

    shown: their table. runs: rows of a study, a benchmark or `compare`, with the keys of `diffrep.runs.summary`.
    commands: what makes the page again. made_with: settings, commit, hardware.
    """
    rows = [{"axes": {}, "code": True, "name": row["run"], **row} for row in runs]
    parts = [_numbers(shown), _cost(rows), _read(rows), _again(commands, made_with or {})]
    found = Page(title, about, [part for part in parts if part is not None])
    write_bytes(Path(path), found.html().encode())
    return Path(path)


def _numbers(shown: Table) -> Section:
    numeric = [any(isinstance(row[i], Number) for row in shown.rows) for i in range(len(shown.columns))]
    lines = [[_cell(cell) for cell in row] for row in shown.rows]
    notes = [Markup("<p>{}</p>").format(note) for note in shown.notes]
    lead = "A number is in bold where its interval of two standard errors meets no other."
    return Section("The numbers", lead, joined(table(shown.columns, lines, "Runs side by side", numeric), *notes))


def _cell(cell: str | Number) -> object:
    if isinstance(cell, str):
        return cell
    return Markup("<b>{}</b>").format(cell.text(" ± ")) if cell.bold else cell.text(" ± ")


def _cost(rows: Sequence[dict]) -> Section | None:
    """bits/dim of each run with two standard errors; and against its rate where several have one."""
    found = {}
    for group in groups(rows):
        value = _of(group, "bits_per_dim")
        if value is not None:
            found[_name(group[0])] = {"bits/dim": value}
    if not found:
        return None
    label = "bits/dim: " + ", ".join(f"{name} {row['bits/dim'][0]:.3f}" for name, row in found.items())
    drawn = [figure(svg.intervals(found, "bits/dim on the test split (less is better)", label))]
    points = {_name(group[0]): pair for group in groups(rows) if (pair := _rate_and_cost(group)) is not None}
    if len(points) > 1:
        said = "bits/dim against rate: " + ", ".join(f"{n} {r:.1f} nats {b:.3f}" for n, (r, b, _) in points.items())
        drawn.append(figure(svg.plane(points, "rate of the code, nats", "bits/dim", said), "Where a run stands."))
    return Section("What an example costs", "The bound, with two standard errors to each side.", joined(*drawn))


def _read(rows: Sequence[dict]) -> Section | None:
    kinds = {key: name for key, name in PROBES.items() if any(row.get(key) is not None for row in rows)}
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for group in groups(rows):
        for key, name in kinds.items():
            value = _of(group, key)
            if value is not None:
                found.setdefault(_name(group[0]), {})[name] = value
    if not found:
        return None
    label = "Accuracy: " + "; ".join(
        f"{run}: " + ", ".join(f"{name} {value:.3f}" for name, (value, _) in row.items()) for run, row in found.items()
    )
    lead = "Accuracy on the test split, with two standard errors to each side."
    return Section("What simple models read", lead, figure(svg.intervals(found, "accuracy on the test split", label)))


def _again(commands: Sequence[str], made_with: Mapping[str, object]) -> Section | None:
    pairs = [(name, _words(value)) for name, value in made_with.items() if value and not isinstance(value, (dict, list))]
    more = [
        details(name.capitalize(), facts([(key, _words(v)) for key, v in value.items()]))
        for name, value in made_with.items()
        if isinstance(value, dict) and value
    ]
    if not commands and not pairs and not more:
        return None
    return Section("Make it again", body=joined(code(*commands) if commands else "", facts(pairs) if pairs else "", *more))


def _of(group: Sequence[Mapping], key: str) -> tuple[float, float] | None:
    """The mean over seeds and its standard error; of one seed, the error over its test examples."""
    mean, error = mean_and_error(row.get(key) for row in group)
    if mean is None:
        return None
    if error is None:
        error = next((row[f"{key}_se"] for row in group if row.get(f"{key}_se") is not None), 0.0)
    return mean, error


def _rate_and_cost(group: Sequence[Mapping]) -> tuple[float, float, float] | None:
    rate, cost = _of(group, "rate_nats"), _of(group, "bits_per_dim")
    return None if rate is None or cost is None else (rate[0], *cost)


def _name(row: Mapping) -> str:
    return ", ".join([row["name"], *map(str, row["axes"].values())])


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    return ", ".join(map(_words, value)) if isinstance(value, (list, tuple)) else str(value)
