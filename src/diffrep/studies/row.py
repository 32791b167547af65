"""One run of a study, for study.json, benchmark.json, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypedDict

from diffrep.runs.summary import Numbers


@dataclass(frozen=True)
class Question:
    """The question that a run answers: its settings that are not defaults, and its measurements.

    refine: steps that refine codes. dim: numbers of a code, for features that need no training. None: not asked.
    """

    measure: list[str] | None = None
    levels: int | None = None
    features: str | None = None
    refine: int | None = None
    settings: list[str] | None = None
    dim: int | None = None

    def asked(self) -> dict[str, Any]:
        """The fields that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Row:
    """A run, or features that need no training, with its numbers; `error` says why it has none.

    name: of all runs that differ in their seed alone. code: it has one. axes: name of each axis of the study -> its
    choice. twin: the run that is the same without a code. factors: name -> score. missing: what could not be measured
    -> why. fingerprint: of the test split.
    """

    run: str
    name: str
    method: str
    code: bool
    seed: int
    axes: dict[str, str]
    twin: str | None = None
    numbers: Numbers = field(default_factory=Numbers)
    factors: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    fingerprint: str | None = None
    question: Question = field(default_factory=Question)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Row:
        """From an object of a JSON file, which has no nesting; names that an older file lacks are None."""

        def those_of(kind: type) -> dict[str, Any]:
            return {f.name: content[f.name] for f in fields(kind) if f.name in content}

        return cls(numbers=Numbers(**those_of(Numbers)), question=Question(**those_of(Question)), **those_of(cls))

    def written(self) -> dict[str, Any]:
        """An object of a JSON file, without nesting; of the question only the fields that are not None."""
        content: dict[str, Any] = {}
        for name, value in asdict(self).items():
            content |= value if name == "numbers" else self.question.asked() if name == "question" else {name: value}
        return content

    def answers(self, question: Question) -> bool:
        """Is this a result for the question?"""
        own = asdict(self.question)
        return self.error is None and all(own[name] == value for name, value in question.asked().items())


class StudyFile(TypedDict, total=False):
    """study.json and benchmark.json: the plan, the machine, and a row for each run (as `Row.written`)."""

    study: str
    about: str
    settings: dict[str, Any]
    budget: str
    commit: str | None
    hardware: dict[str, str | int]
    runs: list[dict[str, Any]]


def rows_of(file: StudyFile) -> list[Row]:
    """The rows of a file; empty where it has none."""
    return [Row.read(content) for content in file.get("runs", [])]
