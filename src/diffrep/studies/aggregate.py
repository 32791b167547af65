"""What a study found: means over seeds, their errors, and the difference that a code makes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from diffrep.studies.table import Cell, Number, Table

# column, key of a row, digits, whether the least is the best (None: neither)
COLUMNS: tuple[tuple[str, str, int, bool | None], ...] = (
    ("bits/dim", "bits_per_dim", 4, True),
    ("rate (nats)", "rate_nats", 2, None),
    ("bits/dim, refined codes", "refined_bits_per_dim", 4, True),
    ("rate, refined codes", "refined_rate_nats", 2, None),
    ("information (nats)", "information_nats", 2, None),
    ("active units", "active_units", 1, None),
    ("linear probe", "probe_linear", 4, False),
    ("kNN probe", "probe_knn", 4, False),
    ("1 label a class", "probe_few1", 4, False),
    ("10 labels a class", "probe_few10", 4, False),
    ("Frechet distance", "frechet", 2, True),
    ("images/s", "images_per_second", 0, None),
    ("parameters", "parameters", 0, None),
)
DIFFERENCE = "minus twin"
DIFFERENCES = {"bits_per_dim": DIFFERENCE, "refined_bits_per_dim": f"{DIFFERENCE}, refined codes"}  # key -> column
NOTE = (
    "Means over seeds ± standard error over seeds (over test examples where there is one seed). minus twin: bits/dim"
    " minus that of the model without a code, of as many parameters, paired by seed. -: not measured, or there is none."
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


def differences(group: Sequence[dict], rows: Sequence[dict], key: str = "bits_per_dim") -> list[float]:
    """What `key` says of each run, minus the bits/dim of its twin, which has the same seed; those that have both."""
    twins = {row["run"]: row for row in rows}
    pairs = [(row.get(key), twins.get(row["twin"] or "", {}).get("bits_per_dim")) for row in group]
    return [own - other for own, other in pairs if own is not None and other is not None]


def table(rows: Sequence[dict]) -> Table:
    """One line for each run and choice of the axes; the best in bold where intervals of two errors do not meet."""
    axes = list(dict.fromkeys(name for row in rows for name in row["axes"]))
    factors = list(dict.fromkeys(name for row in rows for name in row.get("factors", ())))
    lines: list[tuple[Cell, ...]] = []
    for group in groups(rows):
        known = [row for row in group if not row.get("error")]
        cells: list[Cell] = [group[0]["name"], *(group[0]["axes"].get(axis, "-") for axis in axes)]
        cells.append(f"{len(known)}" if len(known) == len(group) else f"{len(known)} of {len(group)}")
        for _, key, digits, _ in COLUMNS:
            cells.append(_number(known, key, digits))
            if key in DIFFERENCES:
                cells.append(Number(*mean_and_error(differences(known, rows, key)), digits=4, signed=True))
        cells += [Number(*mean_and_error(row["factors"].get(name) for row in known)) for name in factors]
        lines.append(tuple(cells))
    names = [column for name, key, *_ in COLUMNS for column in (name, DIFFERENCES.get(key)) if column]
    columns = ("run", *axes, "seeds", *names, *(f"factor {name}" for name in factors))
    failed = tuple(f"{row['run']}: {row['error']}" for row in rows if row.get("error"))
    missing = {f"{row['name']}, {what}: {why}" for row in rows for what, why in row.get("missing", {}).items()}
    found = Table(columns, tuple(lines), (NOTE, *sorted(missing), *failed))
    for name, _, _, lowest in COLUMNS:
        found = found if lowest is None else found.emphasised(name, lowest)
    return found.without_empty()


def _number(rows: Sequence[dict], key: str, digits: int) -> Number:
    """The mean over seeds; of a single seed, the error over its test examples."""
    mean, error = mean_and_error(row.get(key) for row in rows)
    if len(rows) == 1:
        error = rows[0].get(f"{key}_se")
    return Number(mean, None if key == "parameters" else error, digits)
