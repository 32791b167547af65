"""The files of a run directory: settings, card of the data, weights; what can be continued, and what is removed."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from diffrep import config
from diffrep.config import Settings
from diffrep.data import Examples, Splits
from diffrep.data.places import places
from diffrep.errors import UserError
from diffrep.files import write_bytes, writing
from diffrep.runs import records
from diffrep.runs.lock import LOCK
from diffrep.runs.records import WEIGHTS
from diffrep.shapes import Facts, Shape
from diffrep.training.checkpoints import load_tensors

IN_MEMORY = "array"  # what the settings call data that was handed over as it is
SETTINGS, DATA = "config.json", "data.json"
BEGUN = (LOCK, DATA, f".{DATA}.tmp", f".{SETTINGS}.tmp")  # all that a run holds which was killed before its first step
FREE = (
    "budget",
    "log_every",
    "checkpoint_every",
    "workers",
    "device",
    "compile",
    "trackers",
)  # may change on continuing


@dataclass(frozen=True)
class DataCard:
    """What a run records of its data. scaling: mean and standard deviation of each column of a table."""

    source: str
    shape: Shape
    bins: int | None
    examples: dict[str, int]
    fingerprints: dict[str, str]
    skipped: int
    label_names: list[str] | None
    scaling: tuple[list[float], list[float]] | None
    prepared: str

    @classmethod
    def of(cls, splits: Splits) -> DataCard:
        parts = {"train": splits.train, "valid": splits.valid, "test": splits.test}
        train = splits.train
        scaling = None if train.scaling is None else (train.scaling[0].tolist(), train.scaling[1].tolist())
        return cls(
            source=train.name,
            shape=train.shape,
            bins=train.bins,
            examples={name: len(part) for name, part in parts.items()},
            fingerprints={name: part.fingerprint for name, part in parts.items()},
            skipped=splits.skipped,
            label_names=train.label_names,
            scaling=scaling,
            prepared=train.prepared,
        )

    def facts(self, examples: Examples | None = None) -> Facts:
        """What a model must know; what is counted of the training examples only to be trained."""
        classes = len(self.label_names or ())
        if examples is None:
            return Facts(self.shape, self.bins, classes=classes)
        return Facts(self.shape, self.bins, examples.histogram(), places(examples), classes)


def settings_of(directory: str | Path) -> Settings:
    """The settings of a run; UserError where the directory is no run."""
    path = Path(directory) / SETTINGS
    if not path.is_file():
        raise UserError(f"{directory} is not a run: it has no {SETTINGS}. Train one with `diffrep train --out`.")
    return config.load(path)


def read_card(directory: Path) -> DataCard:
    """The data card of a run; UserError where it is missing or broken."""
    try:
        raw = json.loads((directory / DATA).read_text(encoding="utf-8"))
        return DataCard(**{**raw, "shape": tuple(raw["shape"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{directory / DATA} cannot be read ({reason}); train the run again with --restart.") from error


def facts_of(directory: str | Path) -> dict:
    """What the weights of a run say of themselves: which weights, step, examples."""
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
        if any(file.name not in BEGUN for file in directory.iterdir()):
            raise UserError(f"{directory} is not empty and not a run; name a new directory with --out.")
        return None
    if settings is None:
        return None
    was, now = (_flat(s.model_dump(mode="json")) for s in (config.load(directory / SETTINGS), settings))
    for name in sorted(now):
        if was[name] != now[name] and name not in {f"train.{free}" for free in FREE}:
            raise UserError(
                f"{directory} was trained with {name}={was[name]} and this asks for {now[name]}; train a new run with"
                " --out, or begin anew with --restart."
            )
    return read_card(directory)


def same_data(was: DataCard, now: DataCard, directory: Path) -> None:
    """UserError where the data of a run is no longer what it was trained on."""
    if (was.shape, was.bins) != (now.shape, now.bins):
        raise UserError(
            f"{directory} was trained on {form(was.shape, was.bins)} data and {now.source} is"
            f" {form(now.shape, now.bins)}; train a new run with --out, or pick data of the same shape."
        )
    if was.fingerprints != now.fingerprints:
        raise UserError(
            f"{directory} was trained on other data: the fingerprint of {was.source} was {was.fingerprints['train']}"
            f" and is {now.fingerprints['train']}; train a new run with --out, or begin anew with --restart."
        )


def form(shape: Shape, bins: int | None) -> str:
    """Shape and levels of data in words, such as "1x28x28 256-level"."""
    return "x".join(map(str, shape)) + (f" {bins}-level" if bins else " continuous")


def _flat(settings: dict, prefix: str = "") -> dict:
    flat: dict = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def describe(directory: Path, card: DataCard, settings: Settings) -> None:
    """Write what a run is made of; where that fails in a new directory, nothing is left of it."""
    try:
        write_bytes(directory / DATA, _json(asdict(card)))
        write_bytes(directory / SETTINGS, (settings.model_dump_json(indent=2) + "\n").encode())
    except UserError:
        if not (directory / SETTINGS).exists():
            (directory / DATA).unlink(missing_ok=True)
        raise


def remove_learned(directory: Path) -> None:
    """Remove what a run has learned and what is known of it; its settings stay, so that it is still a run, and so does
    all that is not a run's."""
    with writing(directory):
        if (directory / "checkpoints").exists():
            shutil.rmtree(directory / "checkpoints")
        for name in (WEIGHTS, "metrics.jsonl", "timings.jsonl"):
            (directory / name).unlink(missing_ok=True)
    records.remove(directory)


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
