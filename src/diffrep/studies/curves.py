"""A benchmark under several budgets: probe accuracy against seconds of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from diffrep.budget import Budget
from diffrep.errors import UserError
from diffrep.files import write_bytes
from diffrep.studies import figures
from diffrep.studies.benchmark import USUAL, Design, benchmark
from diffrep.studies.row import StudyFile, rows_of
from diffrep.studies.study import Watch, silence, unwatched

CURVES = "curves.png"


def curves(
    data: str,
    directory: str | Path,
    budgets: Sequence[str],
    design: Design = USUAL,
    *,
    say: Callable[[str], None] = silence,
    watch: Watch = unwatched,
) -> list[StudyFile]:
    """`benchmark` under each budget -> DIR/BUDGET/benchmark.json, and DIR/curves.png over all; returns their contents.

    Each budget is a training of its own, since the learning rate falls to zero within a budget. Goes on where it was
    stopped. UserError: as `benchmark`, or the same budget twice.
    """
    named = [str(Budget.parse(budget)) for budget in budgets]
    if len(set(named)) < len(named):
        raise UserError(f"expected budgets that differ, got {', '.join(budgets)}.")
    directory, contents = Path(directory), []
    for budget in named:
        say(f"budget {budget}")
        contents.append(benchmark(data, directory / budget, design, budget=budget, say=say, watch=watch))
        picture = figures.curves([rows_of(content) for content in contents])
        if picture is not None:
            write_bytes(directory / CURVES, picture)
    return contents
