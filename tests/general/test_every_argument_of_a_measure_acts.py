"""Oracle 2 of measures: another value of an argument gives other numbers; an argument without a row fails."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest

from diffrep import measures
from diffrep.denoising.samplers import Sampling
from diffrep.measures.probe import Probing
from diffrep.runs.records import PROBES
from every_measure import leaves, splits
from locked import hold, of_result, whole
from tiny import base

FREE = {"run", "splits", "progress", "budget", "flow"}  # a time, and what takes many steps, have tests of their own
FEW = Probing(names=("few",), few=(2,), repeats=2)
OF_TIME = replace(FEW, t=0.1)
SAMPLINGS = Sampling(steps=2), Sampling("heun", 2)
ROWS: dict[str, tuple[str, dict[str, tuple[Any, Any]]]] = {  # measure: the method of a run, two values of each argument
    "evaluate.evaluate": ("vae-vdm", {"levels": (1, 2), "probe_examples": (20, 40), "refine": (0, 1)}),
    "probe.probe": ("ae", {"asked": (FEW, Probing(names=("linear",))), "beside": (False, True)}),
    "factors.factors": ("ae", {"named": (True, False), "measured": (False, True)}),
    "readout.read_layers": ("ddpm", {"levels": (1, 2), "search": (10, 40), "most": (6, 40), "seed": (0, 1)}),
    "readout.read_times": ("tdrl", {"ks": ((1,), (2,)), "epochs": (1, 6), "seeds": (1, 2), "most": (10, 40)}),
    "semi.semi": ("drl", {"labels_per_class": (1, 2), "seeds": (1, 2), "steps": (2, 8), "most": (20, 40)}),
    "profile.profile": ("vae-vdm", {"levels": (1, 2), "most": (8, None)}),
    "distance.distance": (
        "dsm",
        {"features": ("pixels", "run"), "n": (20, 24), "sampling": SAMPLINGS, "seed": (0, 1)},
    ),
    "disentangle.disentangle": ("ae", {"most": (12, 24)}),
    "disentangle.disentangle, a time": ("tdrl", {"t": (0.1, 0.9)}),
}  # fmt: skip
PROBING = {  # of what a probe is asked for: the method, and a choice that differs in it alone
    "labels": ("ae", replace(FEW, labels="white")),
    "names": ("ae", replace(FEW, names=("spreading",))),
    "few": ("ae", replace(FEW, few=(3,))),
    "t": ("tdrl", replace(OF_TIME, t=0.9)),
    "repeats": ("ae", replace(FEW, repeats=3)),
    "most": ("ae", replace(FEW, most=10)),
    "seed": ("ae", replace(FEW, seed=1)),
}


def measured(name: str, method: str, **given: Any) -> Any:
    module, function = name.split(",")[0].split(".")
    run = base(method)
    (run.directory / PROBES).unlink(missing_ok=True)  # else earlier scores stay
    given = {key: f"run:{base('ae').directory}" if value == "run" else value for key, value in given.items()}
    measure = getattr(importlib.import_module(f"diffrep.measures.{module}"), function)
    return measure(run, splits=splits(), **given)


def numbers(said: Any) -> list[float]:
    """What is measured, but for counts and what was asked for itself."""
    return [value for place, value in leaves(said) if isinstance(value, float) and place != "/t"]


@cache
def plain(name: str) -> list[float]:
    """With the first value of each argument."""
    method, of = ROWS[name]
    return numbers(measured(name, method, **{argument: pair[0] for argument, pair in of.items()}))


@cache
def plainly_probed(method: str) -> list[float]:
    return numbers(measured("probe.probe", method, asked=OF_TIME if method == "tdrl" else FEW, beside=False))


def test_every_argument_of_a_measure_has_a_row():
    lacking = {field.name for field in fields(Probing)} ^ set(PROBING)
    for info in pkgutil.iter_modules(measures.__path__):
        module = importlib.import_module(f"diffrep.measures.{info.name}")
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"):
                asked = set(inspect.signature(value).parameters)
                has = {a for row, (_, of) in ROWS.items() if row.split(",")[0] == f"{info.name}.{name}" for a in of}
                lacking |= {f"{name} {a}" for a in asked - FREE - has} if {"run", "splits"} <= asked else set()
    assert lacking == set()
    pairs = {f"{name} {argument}" for name, (_, of) in ROWS.items() for argument in of}
    whole("arguments", {*ROWS} | pairs | {f"probing {field}" for field in PROBING})


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_the_same_arguments_give_the_same_numbers(name):
    """Else another value would seem to act: a time, or a number that is none, differs from itself."""
    method, of = ROWS[name]
    again = measured(name, method, **{argument: pair[0] for argument, pair in of.items()})
    assert numbers(again) == plain(name)
    hold("arguments", name, of_result(again))


@pytest.mark.slow
@pytest.mark.parametrize("name, argument", [(name, argument) for name, (_, of) in ROWS.items() for argument in of])
def test_an_argument_of_a_measure_acts(name, argument):
    method, of = ROWS[name]
    asked = {one: pair[one == argument] for one, pair in of.items()}
    said = measured(name, method, **asked)
    assert numbers(said) != plain(name)
    hold("arguments", f"{name} {argument}", of_result(said))


@pytest.mark.slow
@pytest.mark.parametrize("field", PROBING)
def test_what_a_probe_is_asked_for_acts(field):
    method, asked = PROBING[field]
    said = measured("probe.probe", method, asked=asked, beside=False)
    assert numbers(said) != plainly_probed(method)
    hold("arguments", f"probing {field}", of_result(said))
