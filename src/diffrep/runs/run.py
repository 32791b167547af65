"""A run directory: settings, what the data was, weights; made by `train`, read by `load`."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffrep import config, data
from diffrep.budget import Budget
from diffrep.codes.priors import Prior
from diffrep.config import Settings
from diffrep.data import Examples, Splits, Stream
from diffrep.data.batches import batches
from diffrep.data.places import places
from diffrep.errors import UserError
from diffrep.files import write_bytes, writing
from diffrep.methods.catalog import build, method
from diffrep.methods.parts import Facts
from diffrep.models.base import Model, evaluating
from diffrep.runs import records
from diffrep.runs.diagnosis import Adviser
from diffrep.runs.lock import LOCK, locked
from diffrep.runs.records import WEIGHTS, weights_digest
from diffrep.shapes import Shape
from diffrep.training import engine
from diffrep.training.checkpoints import load_tensors, load_weights, save_tensors
from diffrep.training.engine import TrainingResult
from diffrep.training.interface import Training
from diffrep.training.process import joined, place

IN_MEMORY = "array"  # what the settings call data that was handed over as it is
SETTINGS, DATA = "config.json", "data.json"
BEGUN = (LOCK, DATA, f".{DATA}.tmp", f".{SETTINGS}.tmp")  # all that a run holds which was killed before its first step
PRIOR_EXAMPLES = 10_000  # training examples whose codes a prior is fitted to
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


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model with its settings and the card of its data; the model holds the averaged (EMA) weights."""

    directory: Path
    settings: Settings
    card: DataCard
    model: Model
    result: TrainingResult | None = None
    data: Splits | None = None

    def splits(self) -> Splits:
        """The data that the run was trained on, cut as it was then; UserError if it has changed."""
        if self.data is not None:
            return self.data
        if self.settings.data.source == IN_MEMORY and not Path(IN_MEMORY).exists():
            raise UserError(
                f"{self.directory} was trained on an array in memory, which a run does not keep: give its splits,"
                " diffrep.load_data(x), or save the array and train on the file."
            )
        splits = splits_of(self.settings)
        _same_data(self.card, DataCard.of(splits), self.directory)
        return splits

    def keep(self, name: str, facts: records.Facts) -> records.Facts:
        """Write a file of results into the run's directory; returns its content, with the digest of the weights."""
        return records.keep(self.directory, name, facts, weights_digest(self.model.state_dict()))

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device

    def scaling(self) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation that the columns of a table were standardised with; None for other data."""
        if self.card.scaling is None:
            return None
        mean, std = self.card.scaling
        return torch.tensor(mean), torch.tensor(std)


def splits_of(settings: Settings) -> Splits:
    """The data of the settings, read and cut."""
    d = settings.data
    return data.load(
        d.source, valid=d.valid, test=d.test, seed=settings.seed, skip_bad=d.skip_bad, label_column=d.label_column
    )


def train(settings: Settings, directory: str | Path, restart: bool = False, splits: Splits | None = None) -> Run:
    """Train what the settings describe into a run directory, or continue the run that is there to its budget.

    restart: remove that run first. splits: data at hand, in place of what settings.data names. Nothing is written
    before settings and data are known to be good. UserError: the directory holds another run (other settings, other
    data), or something that is no run; another process trains in it.
    """
    directory = Path(directory)
    method(settings.method)
    place(settings.train.device)  # a device that is not there is told first
    known = _existing(directory, None if restart else settings)
    splits = splits or splits_of(settings)
    card = DataCard.of(splits)
    if known is not None:
        _same_data(known, card, directory)
    model = build(settings, card.facts(splits.train))
    t = settings.train
    training = Training(
        **t.model_dump(exclude={"budget", "workers"}),
        budget=Budget.parse(t.budget).of(len(splits.train)),
        seed=settings.seed,
    )

    def begin() -> None:
        if restart:
            _remove_run(directory)
        _describe(directory, card, settings)

    with joined(t.device) as here, locked(directory) if here.main else nullcontext():
        _existing(directory, None if restart else settings)  # again, now that nobody else can change it
        examples = splits.train.to(here.device)
        stream = Stream(examples, t.batch // t.accumulate, settings.seed, here.part, here.parts, t.workers)
        advise = Adviser(settings, model.target)
        result = engine.train(model, stream, training, directory, anew=restart, begin=begin, advise=advise)
        facts = load_weights(model, directory / WEIGHTS)
        if model.prior is not None:
            _fit_prior(model, model.prior, examples)
        if here.main:
            save_tensors(directory / WEIGHTS, model.state_dict(), {**facts, "complete": True})
    return Run(directory, settings, card, model.eval(), result, splits)


def load(directory: str | Path, device: str = "auto") -> Run:
    """The run in a directory, its averaged weights in the model; UserError where there is none, or it is broken."""
    directory = Path(directory)
    if not (directory / SETTINGS).is_file():
        raise UserError(f"{directory} is not a run: it has no {SETTINGS}. Train one with `diffrep train --out`.")
    settings, card = config.load(directory / SETTINGS), read_card(directory)
    if not (directory / WEIGHTS).is_file():
        raise UserError(
            f"{directory} has no {WEIGHTS} yet: its training did not end. Continue it with `diffrep train`."
        )
    model = build(settings, card.facts(), warn=False)  # settings without effect were named in training
    if not load_weights(model, directory / WEIGHTS).get("complete"):
        raise UserError(
            f"{directory} was stopped before its codes' prior was fitted; `diffrep train` on it does what is left."
        )
    return Run(directory, settings, card, model.to(place(device).device).eval())


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


def _existing(directory: Path, settings: Settings | None) -> DataCard | None:
    """The card of the run that is there, None where there is nothing, or it is not to be continued (no settings).

    UserError where the directory is something else than a run, or a run that does not fit the settings.
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


def _same_data(was: DataCard, now: DataCard, directory: Path) -> None:
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


def _describe(directory: Path, card: DataCard, settings: Settings) -> None:
    """Write what a run is made of; where that fails in a new directory, nothing is left of it."""
    try:
        write_bytes(directory / DATA, _json(asdict(card)))
        write_bytes(directory / SETTINGS, (settings.model_dump_json(indent=2) + "\n").encode())
    except UserError:
        if not (directory / SETTINGS).exists():
            (directory / DATA).unlink(missing_ok=True)
        raise


def _remove_run(directory: Path) -> None:
    """Remove what a run has learned and what is known of it; its settings stay, so that it is still a run, and so does
    all that is not a run's."""
    with writing(directory):
        if (directory / "checkpoints").exists():
            shutil.rmtree(directory / "checkpoints")
        for name in (WEIGHTS, "metrics.jsonl", "timings.jsonl"):
            (directory / name).unlink(missing_ok=True)
    records.remove(directory)


@torch.no_grad()
def _fit_prior(model: Model, prior: Prior, examples: Examples) -> None:
    """Fit a prior that is fitted after training; one that was trained, or has nothing to fit, stays as it is."""
    index = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))[:PRIOR_EXAMPLES]
    codes = []
    with evaluating(model) as device:
        for chunk in batches(examples.subset(index), 250, 0, device):
            code = model.encode(chunk.x)
            codes.append(code.sample(chunk.random.normal(*code.mean.shape)).cpu())
    prior.fit(torch.cat(codes))


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
