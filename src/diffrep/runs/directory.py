"""The files of a run directory: settings, card of the data, weights; how a run is continued or removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

from diffrep import config
from diffrep.config import Settings
from diffrep.errors import UserError
from diffrep.files import sealed, write_bytes, writing
from diffrep.runs import records
from diffrep.runs.card import DATA, DataCard
from diffrep.runs.lock import LOCK
from diffrep.runs.records import WEIGHTS
from diffrep.training.checkpoints import load_tensors

IN_MEMORY = "array"  # data.source of data that is an object in memory
SETTINGS = "config.json"
METHOD = "method.json"  # of a method from outside: its reference and its version
BEGUN = (LOCK, DATA, f".{DATA}*.tmp", f".{SETTINGS}*.tmp")  # files of a run that was killed before its first step
FREE = (
    "budget",
    "log_every",
    "checkpoint_every",
    "workers",
    "shard",
    "device",
    "compile",
    "trackers",
    "patience",
)  # may change on continuing


def settings_of(directory: str | Path, changes: Sequence[str] = ()) -> Settings:
    """The settings of a run, with changes as in `config.load`; UserError where the directory is no run."""
    path = Path(directory) / SETTINGS
    if not path.is_file():
        raise UserError(f"{directory} is not a run: it has no {SETTINGS}. Train one with `diffrep train --out`.")
    if _is_foreign(path):
        raise UserError(
            f"{path} is of another library: it states no method of diffrep. Give a folder of `diffrep train` or of"
            " run.save_pretrained."
        )
    return config.load(path, changes)


def read_card(directory: Path) -> DataCard:
    """The data card of a run; UserError where it is missing or broken."""
    return DataCard.read(directory)


def weights_metadata(directory: str | Path) -> dict:
    """The metadata of the weights of a run: which weights, step, examples."""
    return load_tensors(Path(directory) / WEIGHTS)[1]


def existing(directory: Path, settings: Settings | None) -> DataCard | None:
    """The card of the run that `settings` would continue; None where there is no run, or no settings are given.

    UserError: the directory holds something else than a run, or a run of other settings.
    """
    if not directory.exists():
        return None
    if not directory.is_dir():
        raise UserError(f"{directory} is a file; name a directory for the run with --out.")
    if not (directory / SETTINGS).is_file():
        if not all(any(fnmatch(file.name, of) for of in BEGUN) for file in directory.iterdir()):
            raise UserError(f"{directory} is not empty and not a run; name a new directory with --out.")
        return None
    if settings is None:
        return None
    card = read_card(directory)
    was, now = (
        _flat(s.model_dump(mode="json")) | {"code.dim": s.code.size(card.shape)}
        for s in (config.load(directory / SETTINGS), settings)
    )
    for name in sorted(now):
        free = name == "data.source" or name in {f"train.{free}" for free in FREE}  # fingerprints decide about data
        if was[name] != now[name] and not free:
            raise UserError(
                f"{directory} was trained with {name}={was[name]} and this asks for {now[name]}; train a new run with"
                " --out, or begin anew with --restart."
            )
    return card


def _is_foreign(path: Path) -> bool:
    """Does a whole file of JSON state none of the settings that every run has?"""
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stated, dict) and not stated.keys() & {"method", "data", "code"}


def _flat(settings: dict, prefix: str = "") -> dict:
    flat: dict = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def describe(directory: Path, card: DataCard, settings: Settings) -> None:
    """Write the card and the settings of a run; where that fails in a new directory, both are removed."""
    try:
        write_bytes(directory / DATA, sealed(asdict(card)))
        write_bytes(directory / SETTINGS, sealed(config.stated(settings)))
    except UserError:
        if not (directory / SETTINGS).exists():
            (directory / DATA).unlink(missing_ok=True)
        raise


def remove_learned(directory: Path) -> None:
    """Remove the weights, logs and results of a run; its settings stay, so that it is still a run, and so do files of
    others."""
    with writing(directory):
        if (directory / "checkpoints").exists():
            shutil.rmtree(directory / "checkpoints")
        for name in (WEIGHTS, "metrics.jsonl", "timings.jsonl"):
            (directory / name).unlink(missing_ok=True)
    records.remove(directory)
