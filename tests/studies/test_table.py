"""Tables: what is bold, what each format says, and the means of a study against hand-made sums."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from diffrep.runs.summary import Numbers
from diffrep.studies.aggregate import DIFFERENCE, mean_and_error, table
from diffrep.studies.row import Question, Row, rows_of
from diffrep.studies.table import Number, Table, clear_best, comma_separated, latex, markdown

GRID = Table(
    ("run", "bits/dim", "probe"),
    (("a_b", Number(1.25, 0.01, 2), Number(None)), ("c", Number(-1.5, None, 2, bold=True), Number(0.5, 0.25))),
    ("A note.",),
)


def row(name: str, seed: int, bits: float | None, twin: str | None = None, **rest) -> Row:
    """A row of study.json."""
    of_twin, numbers = twin and f"{twin}-seed{seed}", Numbers(bits_per_dim=bits)
    return Row(f"{name}-seed{seed}", name, "m", True, seed, {}, of_twin, numbers, **rest)


@pytest.mark.parametrize(
    "numbers, lowest, best",
    [
        ([(1.0, 0.1), (1.5, 0.1)], True, 0),  # 1.2 < 1.3
        ([(1.0, 0.1), (1.35, 0.1)], True, None),  # 1.2 > 1.15, though 1.1 is not
        ([(1.0, 0.1), (1.5, 0.1)], False, 1),
        ([(1.0, 0.1), (1.5, 0.1), (2.0, 0.6)], True, None),  # the third is far, but so uncertain that it may be best
        ([(1.0, 0.1), (2.0, None)], True, None),
        ([(1.0, 0.1)], True, None),
        ([(1.0, 0.0), (1.0, 0.0)], True, None),
    ],
)
def test_bold_is_what_no_interval_meets(numbers, lowest, best):
    """The best is told apart by its interval of two standard errors, from each of the others, or not at all."""
    given = [Number(*pair) for pair in numbers]
    assert clear_best(given, lowest) is (None if best is None else given[best])


def test_one_cell_is_bold_and_it_is_in_its_column():
    """Equal numbers elsewhere stay as they are."""
    rows = ((Number(1.0, 0.1), Number(1.0, 0.1)), (Number(2.0, 0.1), Number(1.0, 0.1)))
    found = Table(("x", "y"), rows).emphasised("x", lowest=True)
    assert [[cell.bold for cell in line] for line in found.rows] == [[True, False], [False, False]]


def test_formats_say_the_same():
    """Markdown and LaTeX show rounded numbers with their errors, CSV the whole numbers; a gap is told apart."""
    lines = markdown(GRID).splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["a_b", "1.25 ± 0.01", "-"]
    assert "**-1.50**" in lines[3] and lines[-1] == "A note." and len({len(line) for line in lines[:4]}) == 1
    tex = latex(GRID)
    assert r"a\_b & 1.25 $\pm$ 0.01 & $-$ \\" in tex and r"\textbf{$-$1.50}" in tex and "{lrr}" in tex
    read = list(csv.reader(io.StringIO(comma_separated(GRID))))
    assert read == [
        ["run", "bits/dim", "bits/dim se", "probe", "probe se"],
        ["a_b", "1.25", "0.01", "", ""],
        ["c", "-1.5", "", "0.5", "0.25"],
    ]


def test_means_and_errors_of_a_study():
    """Means over seeds, s / sqrt(n) with the sample deviation, and differences taken within each seed, by hand."""
    rows = [row("code", s, b, twin="plain") for s, b in enumerate((2.0, 2.4, 2.2))]
    rows += [row("plain", s, b) for s, b in enumerate((1.9, 2.4, 2.0))]
    shown = table(rows)
    cells = dict(zip(shown.columns, shown.rows[0], strict=True))
    assert cells["bits/dim"].value == pytest.approx(2.2)
    assert cells["bits/dim"].se == pytest.approx(0.2 / math.sqrt(3))  # deviations -0.2, 0.2, 0: variance 0.08 / 2
    assert cells[DIFFERENCE].value == pytest.approx(0.1)  # of 0.1, 0, 0.2
    assert cells[DIFFERENCE].se == pytest.approx(0.1 / math.sqrt(3))
    assert dict(zip(shown.columns, shown.rows[1], strict=True))[DIFFERENCE].value is None
    refined = [
        replace(r, numbers=replace(r.numbers, refined_bits_per_dim=r.numbers.bits_per_dim - 0.3))
        if r.name == "code"
        else r
        for r in rows
    ]
    shown = table(refined)
    assert dict(zip(shown.columns, shown.rows[0], strict=True))[f"{DIFFERENCE}, refined codes"].value == pytest.approx(
        -0.2
    )


def test_what_failed_is_counted_and_told():
    """A run without a result does not enter the mean, and its reason stands under the table."""
    shown = table([row("a", 0, 1.0), row("a", 1, None, error="it diverged.")])
    assert shown.rows[0][:2] == ("a", "1 of 2") and "a-seed1: it diverged." in shown.notes
    assert shown.rows[0][2].value == 1.0


def test_nothing_has_no_mean_and_one_has_no_error():
    """A sample deviation needs two values."""
    assert mean_and_error([None, None]) == (None, None)
    assert mean_and_error([None, 3.0]) == (3.0, None)


def test_factors_have_columns_of_their_own():
    """What is known of the data differs from set to set."""
    shown = table([row("a", s, None, factors={"hue": 0.25 * s}) for s in (1, 3)])
    cells = dict(zip(shown.columns, shown.rows[0], strict=True))
    assert cells["factor hue"].value == pytest.approx(0.5) and "bits/dim" not in cells


def test_a_row_is_read_as_it_was_written():
    """All names stand on one level of the file; what an older file lacks is None, and what it has more is left."""
    full = row("a", 1, 2.0, factors={"hue": 0.5}, question=Question(measure=["bound"], levels=8, settings=["seed=1"]))
    content = full.written()
    assert content["bits_per_dim"] == 2.0 and content["levels"] == 8 and "dim" not in content
    assert Row.read(json.loads(json.dumps(content))) == full
    old = {name: value for name, value in content.items() if not name.startswith("refined")}
    assert Row.read({**old, "removed_since": 1}) == full


COMMITTED = {
    file.stem: content
    for file in sorted((Path(__file__).parents[2] / "results").glob("*.json"))
    if "study" in (content := json.loads(file.read_text()))  # the others are of scripts in benchmarks/
}


@pytest.mark.parametrize("name", COMMITTED)
def test_results_that_are_committed_are_read(name):
    """Every row of a committed study or benchmark, of whichever version, has the numbers that its file says."""
    content = COMMITTED[name]
    for raw, read in zip(content["runs"], rows_of(content), strict=True):
        written = read.written()
        assert {name: written[name] for name in raw if name in written} == {
            n: v for n, v in raw.items() if n in written
        }
        assert read.numbers.bits_per_dim == raw["bits_per_dim"] and read.numbers.probe_linear == raw["probe_linear"]
