"""The runs in a folder, with their main numbers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from diffrep.errors import UserError
from diffrep.pages.run_files import RunFiles
from diffrep.runs.directory import DATA, SETTINGS

SHOWN = ("run", "method", "data", "age", "bits/dim", "nats", "linear")


def listing(folder: str | Path) -> list[dict]:
    """Each run below a folder, the newest first: run, method, data, age in seconds, examples, its numbers.

    A run that cannot be read has its reason under "error" in place of numbers. UserError: no folder, or no run in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one that holds runs.")
    places = sorted({path.parent for path in folder.rglob(SETTINGS) if (path.parent / DATA).is_file()})
    if not places:
        raise UserError(f"{folder} holds no runs: train one with `diffrep train --out {folder / 'a'}`.")
    return sorted((_row(place, folder) for place in places), key=lambda row: row["age"])


def rows_of(runs: Sequence[dict]) -> list[list[str]]:
    """The rows that the command prints, the head first."""
    rows = [list(SHOWN)]
    for row in runs:
        cells = [row["run"], row.get("method", "-"), row.get("data", "-"), age(row["age"])]
        if "error" in row:
            rows.append([*cells, "broken", "", ""])
            continue
        forms = (("bits_per_dim", ".3f"), ("rate_nats", ".1f"), ("probe_linear", ".3f"))
        rows.append([*cells, *("-" if row[key] is None else f"{row[key]:{form}}" for key, form in forms)])
    return rows


def age(seconds: float) -> str:
    """A duration in its largest unit: "3 min", "2 h", "5 d"."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _row(place: Path, folder: Path) -> dict:
    newest = max(path.stat().st_mtime for path in place.iterdir() if path.is_file())
    row: dict = {"run": str(place.relative_to(folder)), "age": max(0.0, time.time() - newest)}
    try:
        files = RunFiles.of(place)
        return row | {"method": files.settings.method, "data": files.data, **asdict(files.numbers)}
    except UserError as broken:
        return row | {"error": str(broken)}
