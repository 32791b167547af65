"""A row for every measure, the tiny data that they measure, and a walk that fails for a measure without a row."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from diffrep import measures
from diffrep.data import Examples, Splits, load
from diffrep.denoising.samplers import Sampling
from diffrep.measures.disentangle import disentangle
from diffrep.measures.distance import distance
from diffrep.measures.evaluate import evaluate
from diffrep.measures.factors import factors
from diffrep.measures.probe import Probing, probe
from diffrep.measures.profile import profile
from diffrep.measures.readout import read_layers, read_times
from diffrep.measures.semi import semi
from diffrep.runs import Run
from tiny import source

ALL = ("linear", "knn", "svm", "mlp", "few", "spreading")


@dataclass(frozen=True)
class Row:
    """A measure of a run of `method` on splits; reads: the splits that it is said to use."""

    method: str
    call: Callable[[Run, Splits], Any]
    reads: tuple[str, ...] = ("train", "valid", "test")


ROWS = {
    "evaluate": Row("vae-vdm", lambda run, splits: evaluate(run, splits, levels=2, refine=1)),
    "evaluate, without a bound": Row("ae", lambda run, splits: evaluate(run, splits)),
    "evaluate, a loss": Row("drl", lambda run, splits: evaluate(run, splits, levels=2)),
    "probe": Row("ae", lambda run, splits: probe(run, splits, Probing(names=ALL, few=(2,), repeats=3))),
    "factors": Row("ae", lambda run, splits: factors(run, splits, measured=True)),
    "read_layers": Row("ddpm", lambda run, splits: read_layers(run, splits, levels=2)),
    "read_times": Row("tdrl", lambda run, splits: read_times(run, splits, ks=(1, 2), epochs=3)),
    "semi": Row("drl", lambda run, splits: semi(run, splits, 2, seeds=2, steps=4), ("train", "test")),
    "profile": Row("vae-vdm", lambda run, splits: profile(run, splits, levels=2), ("test",)),
    "profile, over times": Row("tdrl", lambda run, splits: profile(run, splits, levels=2), ("test",)),
    "distance": Row(
        "dsm", lambda run, splits: distance(run, n=24, splits=splits, sampling=Sampling(steps=2)), ("train", "test")
    ),
    "disentangle": Row("ae", lambda run, splits: disentangle(run, splits), ("test",)),
}


def without_a_row() -> set[str]:
    """The public functions of measures/ that take a run and splits and that no row names."""
    public = set()
    for info in pkgutil.iter_modules(measures.__path__):
        module = importlib.import_module(f"diffrep.measures.{info.name}")
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"):
                public |= {name} if {"run", "splits"} <= set(inspect.signature(value).parameters) else set()
    return public - {name.split(",")[0] for name in ROWS}


def splits(test: int = 0, valid: int = 0) -> Splits:
    """The tiny data, with factors: whether a picture is mostly white, and how white its first row is."""
    parts = load(str(source(test=test, valid=valid)))
    return replace(parts, **{name: _with_factors(getattr(parts, name)) for name in ("train", "valid", "test")})


def _with_factors(part: Examples) -> Examples:
    x = (part.batch(torch.arange(len(part))).x.flatten(1).double().numpy() + 1) / 2
    return replace(part, factors={"white": (x.mean(1) > 0.5).astype(np.int64), "row": x[:, :4].mean(1)})


def opposite(parts: Splits, name: str = "test") -> Splits:
    """The same splits with the other one of two classes for every example of one, and of the two values of a factor."""
    part: Examples = getattr(parts, name)
    factors = {**part.factors, "white": 1 - part.factors["white"]}
    return replace(parts, **{name: replace(part, labels=1 - part.labels, factors=factors)})


def leaves(facts: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(where it stands, value) of everything in a result."""
    if isinstance(facts, dict):
        for key, value in facts.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(facts, list | tuple):
        for number, value in enumerate(facts):
            yield from leaves(value, f"{path}/{number}")
    else:
        yield path, facts
