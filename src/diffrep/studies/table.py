"""A table of numbers with their errors, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from diffrep.runs.summary import Column


@dataclass(frozen=True)
class Number:
    """A value with its standard error (None: no error); a value of None is shown as "-".

    ends: of its 95 % interval, where that is not two standard errors to either side, such as Wilson's of an accuracy.
    """

    value: float | None
    se: float | None = None
    digits: int = 3
    bold: bool = False
    signed: bool = False
    ends: tuple[float, float] | None = None

    def interval(self) -> tuple[float, float] | None:
        """Where the value may lie; None where that is not known."""
        if self.ends is not None or self.value is None or self.se is None:
            return self.ends
        return self.value - 2 * self.se, self.value + 2 * self.se

    def text(self, plus_minus: str = " +- ") -> str:
        if self.value is None:
            return "-"
        shown = f"{self.value:{'+' if self.signed else ''},.{self.digits}f}"
        return shown if self.se is None else f"{shown}{plus_minus}{self.se:.{self.digits}f}"


Cell = str | Number


@dataclass(frozen=True)
class Table:
    """Columns with a name each, rows of words and numbers, and notes below."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def without_empty(self) -> Table:
        """Without the columns of numbers that are empty."""
        kept = [i for i in range(len(self.columns)) if not all(_is_empty(row[i]) for row in self.rows)]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=rows)

    def best_in_bold(self, columns: Iterable[Column]) -> Table:
        """With the best number in bold in each of the columns in which one can be the best, as of `emphasised`."""
        shown = self
        for column in columns:
            shown = shown if column.lowest is None else shown.emphasised(column.heading, column.lowest)
        return shown

    def emphasised(self, column: str, lowest: bool) -> Table:
        """With the best number of a column in bold, if its interval (Wilson's, or 2 se) does not meet another."""
        if column not in self.columns:
            return self
        at = self.columns.index(column)
        numbers = [cell for row in self.rows if isinstance(cell := row[at], Number) and cell.value is not None]
        best = clear_best(numbers, lowest)
        rows = tuple((*row[:at], _emboldened(row[at], best), *row[at + 1 :]) for row in self.rows)
        return replace(self, rows=rows)


def clear_best(numbers: Sequence[Number], lowest: bool) -> Number | None:
    """The best of two numbers or more, where its interval (see `Number.interval`) does not meet that of any other.

    None where it does, or where an interval is not known.
    """
    measured = [(n, interval) for n in numbers if n.value is not None and (interval := n.interval()) is not None]
    if len(numbers) < 2 or len(measured) < len(numbers):
        return None
    sign = 1 if lowest else -1
    best, (low, high) = min(measured, key=lambda pair: sign * (pair[0].value or 0.0))
    others = [interval for n, interval in measured if n is not best]
    apart = (high < other[0] if lowest else low > other[1] for other in others)
    return best if all(apart) else None


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown, aligned as plain text; numbers are right-aligned."""
    texts = [
        [name, *(_marked(row[i], "**", "**", " ± ") for row in table.rows)] for i, name in enumerate(table.columns)
    ]
    columns = []
    for i, column in enumerate(texts):
        cells = [text.replace("|", r"\|") for text in column]
        width = max(3, *map(len, cells))
        if all(isinstance(row[i], str) for row in table.rows):
            columns.append([cells[0].ljust(width), "-" * width, *(cell.ljust(width) for cell in cells[1:])])
        else:
            columns.append([cells[0].rjust(width), "-" * (width - 1) + ":", *(cell.rjust(width) for cell in cells[1:])])
    lines = ["| " + " | ".join(row) + " |" for row in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n" + "".join(f"\n{note}\n" for note in table.notes)


def latex(table: Table) -> str:
    """A tabular with booktabs rules."""
    right = ["l" if all(isinstance(row[i], str) for row in table.rows) else "r" for i in range(len(table.columns))]
    lines = [
        *(f"% {_escaped(note)}" for note in table.notes),
        rf"\begin{{tabular}}{{{''.join(right)}}}",
        r"\toprule",
        " & ".join(map(_escaped, table.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(_tex(cell) for cell in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def files(table: Table, title: str) -> dict[str, str]:
    """Name -> content of table.md (under a title), table.csv and table.tex."""
    return {"table.md": title + markdown(table), "table.csv": comma_separated(table), "table.tex": latex(table)}


def comma_separated(table: Table) -> str:
    """CSV at full precision; a column of numbers is followed by one of their standard errors, if there are any."""
    file = io.StringIO()
    out = csv.writer(file, lineterminator="\n")
    errors = [any(_error(row[i]) is not None for row in table.rows) for i in range(len(table.columns))]
    out.writerow(
        [text for name, has in zip(table.columns, errors, strict=True) for text in (name, f"{name} se")[: 1 + has]]
    )
    for row in table.rows:
        cells: list[object] = []
        for cell, has in zip(row, errors, strict=True):
            pair = (cell, "") if isinstance(cell, str) else (_blank(cell.value), _blank(cell.se))
            cells += pair[: 1 + has]
        out.writerow(cells)
    return file.getvalue()


def _is_empty(cell: Cell) -> bool:
    return isinstance(cell, Number) and cell.value is None


def _error(cell: Cell) -> float | None:
    return cell.se if isinstance(cell, Number) else None


def _emboldened(cell: Cell, best: Number | None) -> Cell:
    return replace(cell, bold=True) if isinstance(cell, Number) and cell is best else cell


def _blank(value: float | None) -> object:
    return "" if value is None else value


def _marked(cell: Cell, before: str, after: str, plus_minus: str) -> str:
    if isinstance(cell, str):
        return cell
    text = cell.text(plus_minus)
    return f"{before}{text}{after}" if cell.bold else text


def _tex(cell: Cell) -> str:
    return _escaped(cell) if isinstance(cell, str) else _marked(cell, r"\textbf{", "}", r" $\pm$ ").replace("-", "$-$")


def _escaped(text: str) -> str:
    return "".join(rf"\{c}" if c in "&%$#_{}" else c for c in text)
