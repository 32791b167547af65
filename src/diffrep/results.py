"""What a study found: means over seeds, their errors, and the difference that a code makes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from diffrep.table import Cell, Number, Table

# column, key of a row, digits, whether the least is the best (None: neither)
COLUMNS: tuple[tuple[str, str, int, bool | None], ...] = (
    ("bits/dim", "bits_per_dim", 4, True),
    ("rate (nats)", "rate_nats", 2, None),
    ("information (nats)", "information_nats", 2, None),
    ("active units", "active_units", 1, None),
    ("linear probe", "probe_linear", 4, False),
    ("kNN probe", "probe_knn", 4, False),
    ("Frechet distance", "frechet", 2, True),
    ("images/s", "images_per_second", 0, None),
    ("parameters", "parameters", 0, None),
)
DIFFERENCE = "minus twin"
NOTE = (
    "Means over seeds ± standard error over seeds. minus twin: bits/dim minus that of the model without a code, of as \
many parameters, paired by seed. -: not measured, or there is none."
)


def mean_and_error(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """The mean and its standard error (sample deviation / sqrt n); None where there is no value, or a single one."""
    known = [v for v in values if v is not None]
    if not known:
        return None, None
    error = float(np.std(known, ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else None
    return float(np.mean(known)), error


def groups(rows: Sequence[dict]) -> list[list[dict]]:
    """The rows that differ in their seed alone, in the order of the first of each."""
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        found.setdefault((row["name"], *row["axes"].items()), []).append(row)
    return list(found.values())


def differences(group: Sequence[dict], rows: Sequence[dict]) -> list[float]:
    """Bits/dim of each run minus that of its twin, which has the same seed; those that have both."""
    twins = {row["run"]: row for row in rows}
    pairs = [(row["bits_per_dim"], twins.get(row["twin"] or "", {}).get("bits_per_dim")) for row in group]
    return [own - other for own, other in pairs if own is not None and other is not None]


def table(rows: Sequence[dict]) -> Table:
    """One line for each run and choice of the axes; the best in bold where intervals of two errors do not meet."""
    axes = list(dict.fromkeys(name for row in rows for name in row["axes"]))
    lines: list[tuple[Cell, ...]] = []
    for group in groups(rows):
        known = [row for row in group if not row.get("error")]
        cells: list[Cell] = [group[0]["name"], *(group[0]["axes"].get(axis, "-") for axis in axes)]
        cells.append(f"{len(known)}" if len(known) == len(group) else f"{len(known)} of {len(group)}")
        for _, key, digits, _ in COLUMNS:
            mean, error = mean_and_error(row[key] for row in known)
            cells.append(Number(mean, None if key == "parameters" else error, digits))
            if key == "bits_per_dim":
                cells.append(Number(*mean_and_error(differences(known, rows)), digits=4, signed=True))
        lines.append(tuple(cells))
    names = [name for name, *_ in COLUMNS]
    failed = tuple(f"{row['run']}: {row['error']}" for row in rows if row.get("error"))
    grid = Table(("run", *axes, "seeds", names[0], DIFFERENCE, *names[1:]), tuple(lines), (NOTE, *failed))
    for name, _, _, lowest in COLUMNS:
        grid = grid if lowest is None else grid.emphasised(name, lowest)
    return grid.without_empty()
