"""The log of a training run: a line for each logged step on disk, and a bar on the terminal."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from diffrep.errors import UserError
from diffrep.files import write_bytes, writing

_PATIENCE = 2.0  # seconds before a bar appears


class Line(TypedDict):
    """A line of metrics.jsonl. terms, norms: of every player's turn; those of a second player carry its name.

    loss: nats for each number, lr: the learning rate. watch: what the model says of its step. skipped: what was not
    finite, so that the step counts for nothing.
    """

    step: int
    examples: int
    loss: float
    lr: float
    terms: dict[str, float]
    norms: dict[str, float]
    watch: dict[str, float]
    skipped: NotRequired[str]


class Timing(TypedDict):
    """A line of timings.jsonl; seconds are of training alone."""

    step: int
    seconds: float
    examples_per_second: float


@dataclass(frozen=True)
class Turn:
    """A player's turn: mean terms (nats for each example), loss (nats for each number), norm of each group's gradient.

    suspects: positions in the data of this process's examples with a term that is not finite.
    """

    terms: dict[str, float]
    loss: float
    norms: dict[str, float]
    suspects: list[int] = field(default_factory=list)

    @property
    def blame(self) -> str:
        """The names of terms, or else of gradients, that are not finite; empty where all are finite."""
        terms = [name for name, value in self.terms.items() if not math.isfinite(value)]
        groups = [name for name, norm in self.norms.items() if not math.isfinite(norm)]
        return ", ".join(terms or [f"gradient of {name}" for name in groups])


class Journal:
    """metrics.jsonl, which depends on the seed alone, and timings.jsonl beside it, which depends on the machine.

    active: False writes nothing, for all processes but the first. step: later lines come from a run that was killed
    after its last checkpoint; they are removed here and written again by training.
    """

    def __init__(self, directory: Path, *, active: bool, step: int):
        self.metrics, self.timings = directory / "metrics.jsonl", directory / "timings.jsonl"
        self.active = active
        if active:
            for path in (self.metrics, self.timings):
                write_bytes(path, _kept(path, step))

    def add(self, metrics: Line, timings: Timing) -> None:
        """Append one line to each file; numbers that are not finite become null."""
        if self.active:
            for path, line in ((self.metrics, metrics), (self.timings, timings)):
                with writing(path), open(path, "a") as file:
                    file.write(json.dumps(_plain(line)) + "\n")


class Bar:
    """A bar on stderr with the loss terms, examples a second and the time left; only on a terminal, after a delay."""

    def __init__(self, *, active: bool):
        self.console, self.active, self.started = (
            Console(stderr=True, markup=False, emoji=False),
            active,
            time.monotonic(),
        )
        self.bar: Progress | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, progress: float, text: str) -> None:
        """Show the share of the budget that is spent, and a text."""
        if (
            not (self.active and (self.console.is_terminal or self.console.is_jupyter))
            or time.monotonic() - self.started < _PATIENCE
        ):
            return
        if self.bar is None:
            columns = (BarColumn(), TextColumn("{task.percentage:3.0f}%"), TimeRemainingColumn())
            self.bar = Progress(
                *columns, TextColumn("{task.description}", markup=False), console=self.console, transient=True
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=1.0)
        self.bar.update(self.task, completed=progress, description=text)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.active:
            self.console.print(f"diffrep: {text}", highlight=False, markup=False, soft_wrap=True)


def log_line(step: int, examples: int, turns: dict[str, Turn], rate: float, blame: str) -> Line:
    """The line of a step, which nobody has watched yet."""
    first = next(iter(turns))

    def named(player: str, values: dict[str, float]) -> dict[str, float]:
        return values if player == first else {f"{player}/{name}": value for name, value in values.items()}

    line: Line = {
        "step": step,
        "examples": examples,
        "loss": turns[first].loss,
        "lr": rate,
        "terms": {},
        "norms": {},
        "watch": {},
    }
    for player, turn in turns.items():
        line["terms"] |= named(player, turn.terms)
        line["norms"] |= named(player, turn.norms)
    if blame:
        line["skipped"] = blame
    return line


def short_words(line: Line, speed: float) -> str:
    """The terms of a line and the speed in examples a second, for the bar."""
    terms = "  ".join(f"{name} {value:.4g}" for name, value in line["terms"].items())
    return f"{terms}  {speed:,.0f} examples/s"


def warning(line: Line, turns: dict[str, Turn]) -> str:
    """One sentence about a step that is skipped."""
    suspects = [index for turn in turns.values() for index in turn.suspects]
    where = f", first for example {suspects[0]} of the data ({len(suspects)} in all)" if suspects else ""
    health = "".join(f", {name} {value:.4g}" for name, value in line["watch"].items())
    return f"step {line['step']} is skipped: {line.get('skipped')} not finite{where}{health}."


def read(directory: Path) -> list[Line]:
    """The lines of metrics.jsonl, in order; none where there is no such file. UserError where it is no log."""
    path = directory / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        return [line | {name: line[name] for name in ("step", "terms", "norms", "watch")} for line in lines]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _no_log(path) from error


def _kept(path: Path, step: int) -> bytes:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    try:
        return b"".join(line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError) as error:
        raise _no_log(path) from error


def _no_log(path: Path) -> UserError:
    return UserError(f"{path} is not a valid log any more, as if it was changed by hand: repair it, or move it away.")


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
