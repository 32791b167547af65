"""Several runs as one page: their table, bounds and probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from diffrep.files import write_bytes
from diffrep.pages import svg
from diffrep.pages.page import Page, Section, code, definitions, details, figure, joined, table
from diffrep.runs.summary import Numbers
from diffrep.studies.aggregate import groups as groups_of
from diffrep.studies.aggregate import mean_and_error
from diffrep.studies.row import Row
from diffrep.studies.table import Number, Table

PROBES = {
    "probe_linear": "linear",
    "probe_knn": "nearest neighbours",
    "probe_few1": "1 label a class",
    "probe_few10": "10 labels a class",
}
Groups = Mapping[str, Sequence[Numbers]]  # name of a run -> its numbers, for each seed


def comparison(
    path: str | Path,
    title: str,
    about: str,
    shown: Table,
    groups: Groups,
    commands: Sequence[str] = (),
    made_with: Mapping[str, object] | None = None,
) -> Path:
    """Write a page about several runs to `path`, and return it.

    shown: their table. groups: the numbers of the charts. commands: those that make the page again. made_with:
    settings, commit, hardware.
    """
    sections = [_numbers(shown), _cost(groups), _read(groups), _again(commands, made_with or {})]
    page = Page(title, about, [section for section in sections if section is not None])
    write_bytes(Path(path), page.html().encode())
    return Path(path)


def of_rows(rows: Sequence[Row]) -> Groups:
    """The rows of a study or a benchmark, those that differ in their seed alone together."""
    return {
        ", ".join([group[0].name, *group[0].axes.values()]): [row.numbers for row in group] for group in groups_of(rows)
    }


def _numbers(shown: Table) -> Section:
    head: Sequence[str] = shown.columns
    numeric = [any(isinstance(row[i], Number) for row in shown.rows) for i in range(len(head))]
    lines: Sequence[Sequence[object]] = [[_cell(cell) for cell in row] for row in shown.rows]
    if len(lines) < len(head) - 1:  # a page is higher than wide: runs side by side, numbers under each other
        names, *lines = zip(head, *lines, strict=True)
        head, numeric = [str(name) for name in names], [False, *[True] * (len(names) - 1)]
    notes = [Markup("<p>{}</p>").format(note) for note in shown.notes]
    lead = "A number is in bold where its interval of two standard errors meets no other."
    return Section("The numbers", lead, joined(table(head, lines, "Runs side by side", numeric), *notes))


def _cell(cell: str | Number) -> object:
    if isinstance(cell, str):
        return cell
    return Markup("<b>{}</b>").format(cell.text(" ± ")) if cell.bold else cell.text(" ± ")


def _cost(groups: Groups) -> Section | None:
    """bits/dim of each run with two standard errors; and against its rate where several have one."""
    bounds = {name: {"bits/dim": value} for name, group in groups.items() if (value := _of(group, "bits_per_dim"))}
    if not bounds:
        return None
    label = "bits/dim: " + ", ".join(f"{name} {row['bits/dim'][0]:.3f}" for name, row in bounds.items())
    drawn = [figure(svg.intervals(bounds, "bits/dim on the test split (less is better)", label))]
    points = {name: (rate[0], *bounds[name]["bits/dim"]) for name in bounds if (rate := _of(groups[name], "rate_nats"))}
    if len(points) > 1:
        text = "bits/dim against rate: " + ", ".join(f"{n} {r:.1f} nats {b:.3f}" for n, (r, b, _) in points.items())
        drawn.append(figure(svg.plane(points, "rate of the code, nats", "bits/dim", text), "Cost against rate."))
    return Section("The bound on -log p(x)", "The bound, with two standard errors to each side.", joined(*drawn))


def _read(groups: Groups) -> Section | None:
    scores = {
        run: row
        for run, group in groups.items()
        if (row := {name: value for key, name in PROBES.items() if (value := _of(group, key))})
    }
    if not scores:
        return None
    label = "Accuracy: " + "; ".join(
        f"{run}: " + ", ".join(f"{name} {value:.3f}" for name, (value, _) in row.items()) for run, row in scores.items()
    )
    lead = "Accuracy on the test split, with two standard errors to each side."
    return Section("What simple models read", lead, figure(svg.intervals(scores, "accuracy on the test split", label)))


def _again(commands: Sequence[str], made_with: Mapping[str, object]) -> Section | None:
    pairs = [
        (name, _words(value)) for name, value in made_with.items() if value and not isinstance(value, (dict, list))
    ]
    more = [
        details(name.capitalize(), definitions([(key, _words(v)) for key, v in value.items()]))
        for name, value in made_with.items()
        if isinstance(value, dict) and value
    ]
    if not commands and not pairs and not more:
        return None
    return Section(
        "Make it again", body=joined(code(*commands) if commands else "", definitions(pairs) if pairs else "", *more)
    )


def _of(group: Sequence[Numbers], name: str) -> tuple[float, float] | None:
    """The mean over seeds and its standard error; of one seed, the error over its test examples."""
    mean, error = mean_and_error(numbers.value(name) for numbers in group)
    if mean is None:
        return None
    own = group[0].value(f"{name}_se") if len(group) == 1 else None
    return mean, error or own or 0.0


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    return ", ".join(map(_words, value)) if isinstance(value, (list, tuple)) else str(value)
