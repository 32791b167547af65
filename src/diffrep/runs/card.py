"""The card of a run's data: its shape and source, how it was read, and which example is in which split."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from diffrep import data
from diffrep.amounts import amount
from diffrep.config import Settings
from diffrep.data import Examples, Reading, Splits
from diffrep.data.counted import GreyLevels
from diffrep.data.mixture import latent_classes
from diffrep.errors import UserError
from diffrep.files import unsealed
from diffrep.shapes import Facts, Shape

DATA = "data.json"
HEX = 8  # digits of the SHA-256 that identify an example in a card
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class DataCard:
    """A run's record of its data. scaling: mean and standard deviation of each column of a table.

    reading: how it was read, see `diffrep.data.Reading`; none in runs of version 0.1.0. known: for each split the first
    eight hex digits of the SHA-256 of its examples, one after the other. latent: latent classes of the examples that
    the run began with (`data.mixture`); 0 in older runs, where their number in `examples` decides.
    """

    source: str
    shape: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    bins: PositiveInt | None
    examples: dict[str, int]
    fingerprints: dict[str, str]
    skipped: int
    label_names: list[str] | None
    scaling: tuple[list[float], list[float]] | None
    prepared: str
    reading: dict | None = None
    moments: tuple[list[float], list[float]] | None = (
        None  # of each channel of the training split, for the start of sampling
    )
    known: dict[str, str] | None = None
    latent: NonNegativeInt = 0

    @classmethod
    def of(cls, splits: Splits) -> DataCard:
        by_name = dict(zip(SPLITS, (splits.train, splits.valid, splits.test), strict=True))
        train = splits.train
        scaling = None if train.scaling is None else (train.scaling[0].tolist(), train.scaling[1].tolist())
        return cls(
            source=train.name,
            shape=train.shape,
            bins=train.bins,
            examples={"train": splits.trained_on, "valid": len(splits.valid), "test": len(splits.test)},
            fingerprints={name: split.fingerprint for name, split in by_name.items()},
            skipped=splits.skipped,
            label_names=train.label_names,
            scaling=scaling,
            prepared=train.prepared,
            reading=train.reading.as_dict(),
            known={name: "".join(_names(split)) for name, split in by_name.items()},
            latent=latent_classes(train.shape, splits.trained_on),
        )

    @classmethod
    def read(cls, directory: Path) -> DataCard:
        """The data card of a run; UserError where it is missing or broken."""
        try:
            raw = unsealed(directory / DATA)
            cls(**raw)  # TypeError: an entry is missing, or of a later version
            card = TypeAdapter(cls).validate_python(raw)
            card.facts()
            return card
        except (OSError, ValueError, TypeError, LookupError) as error:
            reason = getattr(error, "strerror", None) or error
            if isinstance(error, ValidationError):
                first = error.errors(include_url=False)[0]
                reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise UserError(
                f"{directory / DATA} cannot be read ({reason}); train the run again with --restart."
            ) from error

    def continues(self, former: DataCard) -> DataCard:
        """The card of a continued run, with what was guessed about its data, and its latent classes, when it began."""
        latent = former.facts().latent
        if self.reading is None or former.reading is None:
            return replace(self, latent=latent)
        of_then = {name: former.reading[name] for name in ("guesses", "notes", "applied") if name in former.reading}
        return replace(self, reading={**self.reading, **of_then}, latent=latent)

    def facts(self, examples: Examples | None = None) -> Facts:
        """The facts for a model; with training examples, for a model to be trained, also their counts, which are
        made where the model uses them."""
        classes, frequencies = len(self.label_names or ()), self.how().covariates.values()
        moments = None if self.moments is None else (torch.tensor(self.moments[0]), torch.tensor(self.moments[1]))
        shares = tuple(count / sum(frequencies) for count in frequencies)
        facts = Facts(
            self.shape,
            self.bins,
            classes=classes,
            moments=moments,
            counts=self.counts(),
            covariates=shares,
            latent=self.latent or latent_classes(self.shape, self.examples["train"]),
        )
        if examples is None:
            return facts
        return replace(facts, counted=GreyLevels(examples, facts.latent))

    def counts(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Mean and standard deviation (F,) of the log counts of a table that is one of counts alone."""
        if self.scaling is None or not self.how().counts:
            return None
        mean, std = (torch.tensor(moment, dtype=torch.float64) for moment in self.scaling)
        return mean, std

    def how(self) -> Reading:
        """How the data was read, to be applied to other data; for a run of version 0.1.0, inferred from its card."""
        if self.reading is not None:
            return Reading.from_dict(self.reading).for_other()
        scaling = None if self.scaling is None else (tuple(self.scaling[0]), tuple(self.scaling[1]))
        return Reading(
            source=self.source,
            shape=self.shape,
            levels=self.bins,
            range=None if self.bins is None else (0.0, self.bins - 1.0),
            counts=None if scaling is None else "counts" in self.prepared,
            scaling=scaling,
            classes=None if self.label_names is None else tuple(self.label_names),
            missing_label=-1,
            upright=False,
            applied=True,
        )

    def usual_covariate(self) -> torch.Tensor | None:
        """(1, K) 1 at the most frequent value of the covariate; None without one."""
        counts = list(self.how().covariates.values())
        return torch.eye(len(counts))[counts.index(max(counts))][None] if counts else None

    def public(self) -> dict:
        """The entries that commands print."""
        return {
            "source": self.source,
            "shape": list(self.shape),
            "bins": self.bins,
            "examples": self.examples,
            "fingerprints": self.fingerprints,
            "skipped": self.skipped,
            "label_names": self.label_names,
            "scaling": self.scaling is not None,
            "prepared": self.prepared,
        }

    def facts_in_words(self, splits: Splits) -> dict:
        """What a person wants to know of it; how it is read stands in its reading."""
        several = [splits.train, splits.valid, splits.test]
        lacking = sum(int((split.labels < 0).sum()) for split in several if split.labels is not None)
        facts = {
            "shape": "x".join(map(str, self.shape)),
            "examples": dict(zip(("training", "validation", "test"), self.examples.values(), strict=True)),
            "without a label": lacking if self.label_names else None,
            "skipped files": self.skipped,
            "prepared": self.prepared,
            "fingerprints": dict(zip(("training", "validation", "test"), self.fingerprints.values(), strict=True)),
        }
        return {name: value for name, value in facts.items() if value}

    def same_data(self, now: DataCard, directory: Path) -> None:
        """UserError where `now` is the card of other data."""
        if (self.shape, self.bins) != (now.shape, now.bins):
            raise UserError(
                f"{directory} was trained on {form(self.shape, self.bins)} data and {now.source} is"
                f" {form(now.shape, now.bins)}; train a new run with --out, or pick data of the same shape."
            )
        if self.fingerprints != now.fingerprints:
            raise UserError(
                f"{directory} was trained on other data: the fingerprint of {self.source} was"
                f" {self.fingerprints['train']} and is {now.fingerprints['train']}; train a new run with --out, or"
                " begin anew with --restart."
            )


def splits_of(
    settings: Settings,
    card: DataCard | None = None,
    tell: Callable[[str], None] = warnings.warn,
    source: object = None,
) -> Splits:
    """The data of the settings, read and cut; with a card, read as it was then.

    source: an array or another object with the data, in place of its name in the settings. Where the data is not at its
    name, its former full path is tried. Examples that were added since training are left out, with a warning.
    """
    d = settings.data
    if card is None:
        given = d.source if source is None else source
        return data.load(given, valid=d.valid, test=d.test, seed=settings.seed, skip_bad=d.skip_bad, **d.how())
    how = card.how()
    if card.reading is None:
        how = replace(how, label=d.label_column)
    here = Path(d.source).expanduser().exists() or not how.place or not Path(how.place).exists()
    if how.place and d.source in (card.source, how.place) and here and not Path(d.source).expanduser().exists():
        raise UserError(
            f"{how.place}, on which the run was trained, is not there: give its new place with --data (in Python"
            " diffrep.load(run, data=...))."
        )
    name = d.source if here else how.place
    splits = data.load(name, valid=d.valid, test=d.test, seed=settings.seed, skip_bad=d.skip_bad, reading=how)
    if DataCard.of(splits).fingerprints == card.fingerprints or card.known is None or splits.shards is not None:
        return splits
    every = data.whole(name, skip_bad=d.skip_bad, reading=how)
    former = _former_splits(every, card)
    if former is None:
        return splits
    added = len(every) - sum(map(len, former))
    tell(f"{name} has {amount(added, 'example')} more than when the run was trained: left out.")
    train, valid, test = (replace(split, split=name) for split, name in zip(former, SPLITS, strict=True))
    return Splits(train, valid, test, splits.skipped)


def form(shape: Shape, bins: int | None) -> str:
    """Shape and grey levels of data in words, such as "1x28x28 256-level"."""
    return "x".join(map(str, shape)) + (f" {bins}-level" if bins else " continuous")


def _names(examples: Examples) -> list[str]:
    return [row.tobytes().hex() for row in examples.digests[:, : HEX // 2]]


def _former_splits(every: Examples, card: DataCard) -> list[Examples] | None:
    """The splits of a card among all examples; None where one of them is gone, or has changed."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(_names(every)):
        places.setdefault(name, []).append(place)
    former = []
    for split in SPLITS:
        text = (card.known or {}).get(split, "")
        names = [text[i : i + HEX] for i in range(0, len(text), HEX)]
        if any(len(places.get(name, ())) < count for name, count in Counter(names).items()):
            return None
        examples = every.subset(torch.tensor([places[name].pop(0) for name in names], dtype=torch.int64))
        if examples.fingerprint != card.fingerprints[split]:
            return None
        former.append(examples)
    return former
