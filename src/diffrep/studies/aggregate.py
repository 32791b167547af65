"""Results of a study: means over seeds, their errors, and the difference between a run and its twin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from diffrep import shapes
from diffrep.runs.summary import COLUMNS
from diffrep.studies.row import Row
from diffrep.studies.table import Cell, Number, Table

DIFFERENCE = "minus twin"
DIFFERENCES = {"bits_per_dim": DIFFERENCE, "refined_bits_per_dim": f"{DIFFERENCE}, refined codes"}  # -> heading
NOTE = (
    "Means over seeds ± standard error over seeds (over test examples where there is one seed)."
    " -: not measured, or there is none."
)
OF_TWINS = (
    f"{DIFFERENCE}: bits/dim minus that of the model without a code, of as many parameters, paired by seed."
    " Above 0, the code worsens the bound."
)


def mean_and_error(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard error of the values that are not None; None without a value, no error for a single one."""
    present = [v for v in values if v is not None]
    if not present:
        return None, None
    mean, error = shapes.mean_and_error(present)
    return mean, error if len(present) > 1 else None


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows that differ in their seed alone, in the order of the first of each."""
    of_choice: dict[tuple, list[Row]] = {}
    for row in rows:
        of_choice.setdefault((row.name, *row.axes.items()), []).append(row)
    return list(of_choice.values())


def differences(group: Sequence[Row], rows: Sequence[Row], name: str = "bits_per_dim") -> list[float]:
    """This number minus the bits/dim of the twin with the same seed, for each run that has both."""
    twins = {row.run: row.numbers.bits_per_dim for row in rows}
    pairs = [(row.numbers.value(name), twins.get(row.twin or "")) for row in group]
    return [own - other for own, other in pairs if own is not None and other is not None]


def table(rows: Sequence[Row]) -> Table:
    """One line for each run and choice of the axes; the best in bold where 95 % intervals do not meet."""
    axes = list(dict.fromkeys(name for row in rows for name in row.axes))
    factors = list(dict.fromkeys(name for row in rows for name in row.factors))
    lines: list[tuple[Cell, ...]] = []
    for group in groups(rows):
        done = [row for row in group if not row.error]
        cells: list[Cell] = [group[0].name, *(group[0].axes.get(axis, "-") for axis in axes)]
        cells.append(f"{len(done)}" if len(done) == len(group) else f"{len(done)} of {len(group)}")
        for name, column in COLUMNS.items():
            cells.append(_number(done, name, column.digits))
            if name in DIFFERENCES:
                cells.append(Number(*mean_and_error(differences(done, rows, name)), digits=4, signed=True))
        cells += [Number(*mean_and_error(row.factors.get(name) for row in done)) for name in factors]
        lines.append(tuple(cells))
    headings = [text for name, column in COLUMNS.items() for text in (column.heading, DIFFERENCES.get(name)) if text]
    columns = ("run", *axes, "seeds", *headings, *(f"factor {name}" for name in factors))
    failed = tuple(f"{row.run}: {row.error}" for row in rows if row.error)
    missing = {f"{row.name}, {what}: {why}" for row in rows for what, why in row.missing.items()}
    notes = (NOTE, *sorted(missing), *failed)
    shown = Table(columns, tuple(lines), notes).best_in_bold(COLUMNS.values()).without_empty()
    return replace(shown, notes=(NOTE, OF_TWINS, *notes[1:])) if DIFFERENCE in shown.columns else shown


def _number(rows: Sequence[Row], name: str, digits: int) -> Number:
    """The mean over seeds; of a single seed, the error over its test examples.

    All seeds share the test examples, so that the interval of an accuracy is at least as wide as that of one of them.
    """
    mean, error = mean_and_error(row.numbers.value(name) for row in rows)
    if len(rows) == 1:
        error = rows[0].numbers.value(f"{name}_se")
    number = Number(mean, None if name == "parameters" else error, digits)
    own, test = number.interval(), [ends for row in rows if (ends := row.numbers.ends(name)) is not None]
    if own is None or not test:
        return number
    low, high = (sum(side) / len(test) for side in zip(*test, strict=True))
    return replace(number, ends=(min(own[0], low), max(own[1], high)))
