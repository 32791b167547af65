"""Probes by name, for the commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from diffrep.errors import UserError, unknown
from diffrep.probes.few_labels import FEW, few_labels
from diffrep.probes.linear import LINEAR, REGRESSION, SVM, linear, regression, svm
from diffrep.probes.mlp import MLP, mlp
from diffrep.probes.neighbours import KNN, SPREADING, knn, spreading
from diffrep.probes.result import Result, Split
from diffrep.progress import Part, unsaid

ALL = 2**62  # training examples: the caller has limited their number
ONCE: dict[str, tuple[Callable[..., Result], str]] = {
    "linear": (partial(linear, most=ALL), LINEAR),
    "knn": (knn, KNN),
    "svm": (svm, SVM),
    "mlp": (partial(mlp, most=ALL), MLP),
    "regression": (partial(regression, most=ALL), REGRESSION),
}
DRAWN: dict[str, tuple[Callable[..., Result], str]] = {
    "few": (few_labels, FEW),
    "spreading": (spreading, SPREADING),
}
OF_CLASSES, OF_NUMBERS = ("linear", "knn"), ("regression",)  # where none is asked for


@dataclass(frozen=True)
class Protocol:
    """measure: (train, valid, test, tell=) -> result; tell is called with how much is done, and of how much.

    stamp: entries of every result that this protocol made.
    """

    measure: Callable[..., Result]
    stamp: Mapping[str, object]

    def made(self, result: Result | None) -> bool:
        """Did this protocol make the result?"""
        return result is not None and all(result.get(name) == value for name, value in self.stamp.items())


def protocols(
    names: Sequence[str] | None,
    few: Sequence[int] = (),
    repeats: int = 20,
    seed: int = 0,
    numbers: bool = False,
    classes: Sequence[str] | None = None,
) -> dict[str, Protocol]:
    """The protocols of these names; None: linear and knn, or regression where the labels are `numbers`.

    few: numbers of labels of each class for the protocols of few labels ("few-10"); without such a name, that is "few".
    classes: their names, for sentences about one.
    UserError: a name that does not exist, or that is not for such labels; few labels without their number.
    """
    asked = list(dict.fromkeys(names or (OF_NUMBERS if numbers else OF_CLASSES)))
    for name in asked:
        if name not in {**ONCE, **DRAWN}:
            raise unknown("protocol", name, [*ONCE, *DRAWN])
        if numbers != (name in OF_NUMBERS):
            kind, other = ("numbers", "regression") if numbers else ("classes", "linear or knn")
            raise UserError(f"these labels are {kind}, which {name} is not for: ask for {other}.")
    drawn = [name for name in asked if name in DRAWN]
    if drawn and not few:
        raise UserError(f"{drawn[0]} learns from a few labels of each class: say how many, such as --few 1,10.")
    if few and numbers:
        raise UserError("these labels are numbers, which have no classes to draw a few of: leave out --few.")
    chosen = {name: Protocol(ONCE[name][0], {"protocol": ONCE[name][1]}) for name in asked if name in ONCE}
    for name in drawn or ["few"]:
        chosen |= {f"{name}-{count}": _of_draws(name, count, repeats, seed, classes) for count in few}
    return chosen


def names_of(words: str | None) -> list[str] | None:
    """ "linear,knn" -> its names; None for None. UserError where the words name nothing."""
    if words is None:
        return None
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise UserError(f"expected names with commas between, such as linear,knn, got {words!r}; leave it out for all.")
    return names


def counts_of(words: str | None) -> list[int]:
    """ "1,5,10" -> its numbers; UserError where they are none, or below 1."""
    counts = names_of(words) or []
    if not all(word.isdecimal() and int(word) for word in counts):
        raise UserError(f"expected numbers of labels for each class, such as --few 1,5,10, got {words!r}.")
    return [int(word) for word in counts]


def _of_draws(name: str, count: int, repeats: int, seed: int, classes: Sequence[str] | None) -> Protocol:
    many, version = DRAWN[name]

    def measure(train: Split, valid: Split, test: Split, tell: Part = unsaid) -> Result:
        """Nothing is chosen, so the validation split is not used."""
        return many(train, test, count, repeats, seed, classes, tell)

    return Protocol(measure, {"protocol": version, "per_class": count, "draws": repeats, "seed": seed})
