"""The plan of a study: a grid of runs, and the measurements of each."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, ValidationError

from diffrep import config
from diffrep.config import Amount, Frozen, Settings
from diffrep.errors import UserError, unknown
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.studies.twin import twin

Measure = Literal["bound", "probes", "information", "distance", "factors", "appearance"]
OWN_KEYS = {"method": "method", "seed": "seeds", "data.source": "data", "train.budget": "budget"}


def _changes(changes: tuple[str, ...]) -> tuple[str, ...]:
    for change in changes:
        if (name := change.partition("=")[0].strip()) in OWN_KEYS:
            raise ValueError(f"a study has a key of its own for {name}: write {OWN_KEYS[name]} = ..., got {change!r}.")
    return changes


Changes = Annotated[tuple[str, ...], AfterValidator(_changes)]


class Entry(Frozen):
    """A run of the study, once for each seed and each choice of the axes."""

    name: str = Field(min_length=1, description="name in the table")
    method: str = Field(min_length=1, description="`diffrep methods` lists them")
    changes: Changes = Field(default=(), alias="set", description="settings of this run, such as code.rate=12")
    twin: bool = Field(default=False, description="also without its code, with as many parameters")


class Plan(Frozen):
    """A study: every run with every choice of every axis and every seed, under one budget."""

    name: str = Field(min_length=1, description="name of the study")
    about: str = Field(default="", description="question of the study, in one sentence")
    data: str = Field(default="digits", min_length=1, description="name of a data set, or a path")
    budget: Amount = Field(description="amount of training of each run")
    seeds: tuple[NonNegativeInt, ...] = Field(
        default=(0, 1, 2), min_length=1, description="seeds; each run is repeated for each"
    )
    changes: Changes = Field(default=(), alias="set", description="settings of all runs")
    measure: tuple[Measure, ...] = Field(default=("bound", "probes"), description="measurements of each run")
    levels: PositiveInt = Field(default=8, description="noise levels for each test example in the bound")
    refine: NonNegativeInt = Field(default=0, description="gradient steps that refine codes, as `evaluate --refine`")
    features: str = Field(
        default="pixels", min_length=1, description="features of the distance, as of `diffrep distance`"
    )
    runs: tuple[Entry, ...] = Field(min_length=1, description="the runs")
    axes: dict[str, Annotated[dict[str, Changes], Field(min_length=1)]] = Field(
        default={}, description="axis -> choice -> settings"
    )


@dataclass(frozen=True)
class Planned:
    """One run to be made: its folder, its name in the table, its choices, its settings, and its twin's folder."""

    folder: str
    name: str
    axes: dict[str, str]
    settings: Settings
    code: bool
    twin: str | None = None


def read(path: str | Path, data: str | None = None) -> Plan:
    """The study of a TOML file; `data` in place of what the file names. UserError for any mistake in it."""
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the study {path} cannot be read ({error.strerror}): give a TOML file.") from error
    except ValueError as error:
        raise UserError(f"the study {path} is not valid TOML ({error}).") from error
    return plan(raw if data is None else {**raw, "data": data}, str(path))


def plan(raw: dict, origin: str = "the study") -> Plan:
    """The study that plain values describe; UserError, with the nearest right name, for the first that is wrong."""
    try:
        study = Plan.model_validate(_tuples(raw))
    except ValidationError as error:
        raise _mistake(error.errors(include_url=False)[0], origin) from error
    names = [entry.name for entry in study.runs]
    if len(set(map(_slug, names))) < len(names):
        raise UserError(f"{origin}: two runs have one name among {', '.join(names)}; give each its own.")
    return study


def expand(study: Plan, facts: Facts) -> list[Planned]:
    """All runs of a study in order, each model is built once, so that mistakes are errors before any training.

    A twin comes after its run; a twin that two runs share occurs once.
    """
    runs: dict[str, Planned] = {}
    for (axes, changes), entry in product(list(_choices(study.axes)), study.runs):
        place = "-".join(map(_slug, axes.values()))
        words = [*_own(study, entry), *study.changes, *changes, *entry.changes]
        base = config.override(Settings(), words)
        code, other = build(base, facts, warn=False).has_code, twin(base, facts) if entry.twin else None
        for seed in study.seeds:
            made = Planned(_folder(entry.name, place, seed), entry.name, axes, _seeded(base, seed), code)
            if other is not None:
                name, plain = f"{entry.name}, twin", _seeded(other, seed)
                same = next((run for run in runs.values() if run.settings == plain), None)
                if same is None:
                    same = Planned(_folder(name, place, seed), name, axes, plain, code=False)
                elif same.name == name:  # keep the choices that all its runs have in common
                    shared = {axis: choice for axis, choice in same.axes.items() if axes[axis] == choice}
                    runs[same.folder] = same = replace(same, axes=shared)
                made = replace(made, twin=same.folder)
                _put(runs, made)
                _put(runs, same)
            _put(runs, made)
    return list(runs.values())


def _put(runs: dict[str, Planned], run: Planned) -> None:
    """Under its folder; UserError where another run is there already, since one of them would be lost."""
    other = runs.setdefault(run.folder, run)
    if other != run:
        raise UserError(
            f"two runs of the study would share the folder {run.folder}, {_words(other)} and {_words(run)}; give runs"
            " and choices names that differ in letters or digits."
        )


def _words(run: Planned) -> str:
    return " ".join([repr(run.name), *map(repr, run.axes.values())])


def _own(study: Plan, entry: Entry) -> list[str]:
    """The settings that have keys of their own, but for the seed."""
    return [f"method={entry.method}", f"data.source={study.data}", f"train.budget={study.budget}"]


def _seeded(settings: Settings, seed: int) -> Settings:
    return config.override(settings, [f"seed={seed}"])


def _choices(axes: dict[str, dict[str, Changes]]) -> Iterator[tuple[dict[str, str], list[str]]]:
    """({axis: choice}, settings) of every combination, the last axis fastest."""
    for combination in product(*(values.items() for values in axes.values())):
        names = dict(zip(axes, (name for name, _ in combination), strict=True))
        yield names, [change for _, changes in combination for change in changes]


def _folder(name: str, place: str, seed: int) -> str:
    return "-".join(word for word in (_slug(name), place, f"seed{seed}") if word)


def _slug(name: str) -> str:
    """A name as a folder: small letters, digits, dots and single dashes."""
    plain = "".join(c if c.isalnum() or c == "." else "-" for c in name.lower())
    return "-".join(word for word in plain.split("-") if word)


def _tuples(value: object) -> object:
    """Lists as tuples, since the fields are frozen."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _mistake(first: Any, origin: str) -> UserError:
    """One sentence about the first thing that is wrong."""
    loc: Sequence[str | int] = first["loc"]
    inside = Entry if loc[0] == "runs" and len(loc) > 2 else Plan
    keys = [info.alias or name for name, info in inside.model_fields.items()]
    where = ".".join(str(key) for key in loc)
    if first["type"] == "extra_forbidden":
        return UserError(f"{origin}: {unknown('key', str(loc[-1]), keys)}")
    if first["type"] == "missing":
        return UserError(f"{origin}: {where} is missing; known keys are {', '.join(keys)}.")
    if first["type"] == "literal_error":
        return UserError(f"{origin}: {unknown('measure', str(first['input']), get_args(Measure))}")
    if first["type"] == "value_error":
        return UserError(f"{origin}: {where}: {first['msg'].removeprefix('Value error, ')}")
    expected = first["msg"].removeprefix("Input should be ").lower()
    return UserError(f"{origin}: {where}: expected {expected}, got {first['input']!r}.")
