"""A run: a trained model with its settings and its data; made by `train`, read by `load`."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffrep.amounts import amount
from diffrep.budget import Budget
from diffrep.codes.posteriors import Code
from diffrep.codes.priors import Prior
from diffrep.config import Settings
from diffrep.data import Examples, Reading, ShardStream, Splits, Stream
from diffrep.errors import UserError
from diffrep.evaluation.encoding import encode_batches
from diffrep.files import write_bytes
from diffrep.methods import catalog, foreign
from diffrep.methods.catalog import Method, Recipe, build, name_of
from diffrep.models.base import Model
from diffrep.runs import records
from diffrep.runs.callbacks import Listeners, Patience
from diffrep.runs.card import DataCard, splits_of
from diffrep.runs.diagnosis import Adviser
from diffrep.runs.directory import IN_MEMORY, METHOD, describe, existing, read_card, remove_learned, settings_of
from diffrep.runs.lock import locked
from diffrep.runs.records import WEIGHTS, weights_digest
from diffrep.training import engine
from diffrep.training.checkpoints import load_weights, save_tensors
from diffrep.training.engine import TrainingResult
from diffrep.training.interface import Source, Training
from diffrep.training.journal import Line
from diffrep.training.process import joined, place

PRIOR_EXAMPLES = 30_000  # training examples for the fit of a prior


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model with its settings and the card of its data; the model holds the averaged (EMA) weights."""

    directory: Path
    settings: Settings
    card: DataCard
    model: Model
    result: TrainingResult | None = None
    data: Splits | None = None

    @property
    def code_dim(self) -> int:
        """Numbers in a code."""
        return self.settings.code.size(self.card.shape)

    def splits(self) -> Splits:
        """The data that the run was trained on, cut as it was then; UserError if it has changed."""
        if self.data is not None:
            return self.data
        if self.settings.data.source == IN_MEMORY and not Path(IN_MEMORY).exists():
            raise UserError(
                f"{self.directory} was trained on an array in memory, which a run does not keep: give its splits,"
                " diffrep.load_data(x), or save the array and train on the file."
            )
        splits = splits_of(self.settings, self.card)
        self.card.same_data(DataCard.of(splits), self.directory)
        return splits

    def keep(self, name: str, content: records.Content) -> records.Content:
        """Write a file of results into the run's directory; returns its content, with the digest of the weights."""
        return records.keep(self.directory, name, content, weights_digest(self.model.state_dict()))

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device

    def encode(self, x: Any, t: float | None = None) -> Code:
        """The codes of raw examples, whatever `diffrep.load_data` takes, prepared as the run's data was.

        A tensor of floats is taken for x itself, in [-1, 1] (tables: standardised, with a warning where it does
        not look so). UserError: what does not fit.
        """
        from diffrep.runs.inputs import codes_of

        return codes_of(self, x, t)

    def reconstruct(self, x: Any, **how: Any) -> Tensor:
        """As `Model.reconstruct`, of raw examples with their covariate; see `encode`."""
        from diffrep.runs.inputs import batch_of

        given = batch_of(self, x)
        return self.model.reconstruct(given.x, **{"covariate": given.covariate, **how})

    def interpolate(self, a: Any, b: Any, **how: Any) -> Tensor:
        """As `Model.interpolate`, between the first of two sets of raw examples, with the covariate of a; see
        `encode`."""
        from diffrep.runs.inputs import batch_of

        one, other = batch_of(self, a), batch_of(self, b)
        covariate = None if one.covariate is None else one.covariate[:1]
        return self.model.interpolate(one.x[0], other.x[0], **{"covariate": covariate, **how})

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write what others need to use the run: safetensors, JSON and a card with its numbers; see `runs.sharing`."""
        from diffrep.runs.sharing import save

        return save(self, folder)

    def push_to_hub(self, name: str, private: bool | None = None, token: str | None = None) -> str:
        """The same on the Hugging Face hub, as "org/name" (extra `hub`); returns its address."""
        from diffrep.runs.sharing import push

        return push(self, name, private, token)

    def restore(self, x: Tensor, covariate: Tensor | None = None) -> Any:
        """x (N, *shape), as the model gives it, in the units of the data: an array, or a table of pyarrow with its
        columns, that of the covariate (N, K) among them; see `runs.restored`."""
        from diffrep.runs.restored import restored

        return restored(self.card, x, covariate)

    def export(self, path: str | Path, prepared: bool = False, t: float | None = None) -> Path:
        """Write the encoder as `.onnx` or `.pt2` (extra `export`); see `runs.export`."""
        from diffrep.runs.export import export

        return export(self, path, prepared, t)

    def scaling(self) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation that the columns of a table were standardised with; None for other data."""
        if self.card.scaling is None:
            return None
        mean, std = self.card.scaling
        return torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)


def train(
    settings: Settings,
    directory: str | Path,
    restart: bool = False,
    splits: Splits | None = None,
    tell: Callable[[Reading], None] = lambda reading: None,
    callbacks: Sequence[Any] = (),
    quiet: bool = False,
) -> Run:
    """Train what the settings describe into a run directory, or continue the run that is there to its budget.

    restart: remove that run first. splits: the data, in place of that of settings.data. tell: called with the reading
    of the data once training begins. callbacks: see `Listeners`. quiet: no bar, no advice. Nothing is written before
    settings and data are checked. UserError: the directory holds another run (other settings, other data), or something
    that is no run; another process trains in it.
    """
    directory = Path(directory)
    catalog.method(settings.method)
    place(settings.train.device)  # first the error for a missing device
    if (t := settings.train).shard and (t.compile or t.patience or t.precision == "fp16"):
        raise UserError("expected train.shard without train.compile and train.patience, and a precision of no or bf16.")
    former = existing(directory, None if restart else settings)
    splits = splits or splits_of(settings, former)
    card = DataCard.of(splits)
    if former is not None:
        former.same_data(card, directory)
        card = card.continues(former)
    mean, variance = splits.train.moments()
    card = replace(card, moments=(mean.tolist(), variance.tolist()))
    model = build(settings, card.facts(splits.train), warn=former is None)  # what a former run has was named then
    if former is None:
        _warn_of_one_class(splits.train)
        if model.target is not None:
            _warn_of_repeats(splits.train, model.target)
    patience = [Patience(model, splits.valid, t.patience)] if t.patience else []
    listeners = Listeners([*patience, *callbacks])
    training = Training(
        **t.model_dump(exclude={"budget", "workers", "patience"}),
        budget=Budget.parse(t.budget).of(splits.trained_on),
        seed=settings.seed,
    )

    def begin() -> None:
        if restart:
            remove_learned(directory)
        describe(directory, card, settings)
        tell(splits.train.reading)
        if (origin := foreign.origin(settings.method)) is not None:
            write_bytes(directory / METHOD, (json.dumps(origin) + "\n").encode())

    with joined(t.device) as here, locked(directory) if here.main else nullcontext():
        existing(directory, None if restart else settings)  # again, now that nobody else can change it
        examples = splits.train.to(here.device)
        shared = (t.batch // t.accumulate, settings.seed, here.rank, here.processes, t.workers)
        if splits.shards is None:
            stream: Source = Stream(examples, *shared)
        else:
            stream = ShardStream(splits.shards, examples.reading, *shared, skip_bad=settings.data.skip_bad)
        adviser = Adviser(settings, model.target)

        def advise(line: Line) -> str | None:
            listeners.on_log(line)
            return adviser(line)

        result = engine.train(model, stream, training, directory, anew=restart, begin=begin, advise=advise, quiet=quiet)
        about = load_weights(model, directory / WEIGHTS)
        if model.prior is not None:
            _fit_prior(model, model.prior, examples)
        if here.main:
            save_tensors(directory / WEIGHTS, model.state_dict(), {**about, "complete": True})
    run = Run(directory, settings, card, model.eval(), result, splits)
    listeners.on_end(run)
    return run


def load(
    directory: str | Path,
    device: str = "auto",
    data: str | None = None,
    method: Recipe | Method | None = None,
    revision: str | None = None,
) -> Run:
    """The run in a directory, its averaged weights in the model; UserError where there is none, or it is broken.

    directory: where it lies; as a str also "org/name" of the Hugging Face hub (extra `hub`), and then a revision. data:
    where the data that it was trained on lies now. method: the function that its method is, where no installed package
    offers it; nothing that the directory names is imported otherwise.
    """
    from diffrep.runs.sharing import located

    directory = located(directory, revision)
    settings, card = settings_of(directory, [f"data.source={data}"] if data else ()), read_card(directory)
    if method is not None and name_of(method) != settings.method:
        raise UserError(f"{directory} was trained with {settings.method}, and {name_of(method)} was handed over.")
    if not (directory / WEIGHTS).is_file():
        raise UserError(
            f"{directory} has no {WEIGHTS} yet: its training did not end. Continue it with `diffrep train`."
        )
    model = build(settings, card.facts(), warn=False)  # settings without effect were named in training
    if not load_weights(model, directory / WEIGHTS).get("complete"):
        raise UserError(
            f"{directory} was stopped before the prior of its codes was fitted; `diffrep train` on it completes the"
            " run."
        )
    return Run(directory, settings, card, model.to(place(device).device).eval())


def _warn_of_one_class(examples: Examples) -> None:
    """A warning where every label is the same."""
    labels = None if examples.labels is None else examples.labels[examples.labels >= 0].unique()
    if labels is not None and len(labels) == 1:
        name = repr(examples.label_names[int(labels)]) if examples.label_names else f"{int(labels)}"
        warnings.warn(
            f"every label of the training split is {name}, so that probes and classifiers have nothing to tell apart:"
            " name labels of several classes with data.label_column, or go on without them.",
            stacklevel=3,
        )


def _warn_of_repeats(examples: Examples, target: float) -> None:
    """A warning where examples repeat, so that all of them hold less than the rate that is asked for."""
    nats, different = examples.entropy()
    if nats < target and 2 * different <= len(examples):
        sentence = (
            f"of {amount(len(examples), 'training example')} {different:,} differ from each other, so a code of them"
            f" carries at most {nats:.1f} nats, and {target:g} are asked for. What is held beyond them tells nothing"
            f" apart; prior.kind=afterwards takes most of it out of the bound. code.rate={math.floor(10 * nats) / 10}"
            " asks for what there is, and gave a worse bound in a trial (docs/alive.md)."
        )
        warnings.warn(sentence, stacklevel=3)


@torch.no_grad()
def _fit_prior(model: Model, prior: Prior, examples: Examples) -> None:
    """Fit a prior after training; a prior that was trained, or has no parameters, does not change. UserError: codes
    that are not finite."""
    index = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))[:PRIOR_EXAMPLES]
    encoded = encode_batches(model, examples.subset(index), batch=250)
    codes = torch.cat([code.sample(chunk.random.normal(*code.mean.shape)).cpu() for chunk, (code,) in encoded])
    if lost := int((~codes.isfinite()).any(1).sum()):
        raise UserError(
            f"the codes of {lost:,} of {amount(len(codes), 'training example')} are not finite, so training has"
            " diverged: train again with --restart and a lower train.lr."
        )
    prior.fit(codes)
