"""A fitted run as bytes: the content of a pickle, and the run directory made from it."""

from __future__ import annotations

import json
import weakref
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from diffrep.data.splits import Splits
from diffrep.errors import UserError
from diffrep.files import write_bytes
from diffrep.runs.card import DATA, DataCard
from diffrep.runs.directory import SETTINGS
from diffrep.runs.records import WEIGHTS

MODEL = (
    SETTINGS,
    DATA,
    WEIGHTS,
    "metrics.jsonl",
    "timings.jsonl",
    "metrics.json",
)  # all but the checkpoints


def files_of(directory: Path, trimmed: bool) -> dict[str, bytes]:
    """Name below the run -> content; weights are bytes of safetensors. trimmed: without checkpoints."""
    names = [directory / name for name in MODEL]
    if not trimmed:
        names += sorted((directory / "checkpoints").glob("*.safetensors"))
    return {file.relative_to(directory).as_posix(): file.read_bytes() for file in names if file.is_file()}


def temporary(owner: object, files: dict[str, bytes] | None = None) -> Path:
    """A directory that is removed with its owner, or when the process ends; with these files in it."""
    directory = Path(mkdtemp(prefix="diffrep-"))
    weakref.finalize(owner, rmtree, directory, ignore_errors=True)
    for name, content in (files or {}).items():
        place = directory / name
        if not place.resolve().is_relative_to(directory.resolve()):
            raise UserError(f"{name!r} points out of the run that it belongs to; fit the estimator anew.")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return directory


def replace_data(directory: Path, splits: Splits) -> None:
    """Replace the card of a run, so that training can continue on other rows of the same kind."""
    card = DataCard.of(splits).continues(DataCard.read(directory))
    write_bytes(directory / DATA, (json.dumps(asdict(card), indent=2) + "\n").encode())
