"""Callbacks of training: on_log(line) at each logged step, on_end(run) once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from diffrep.data import Examples
from diffrep.errors import UserError
from diffrep.models.base import Model, evaluating
from diffrep.shapes import Draws
from diffrep.training.interface import Stop
from diffrep.training.journal import Line

if TYPE_CHECKING:
    from diffrep.runs.run import Run

MOST = 256  # validation examples for patience


class Listeners:
    """Callbacks as one. A callback has on_log(line), on_end(run), or both; it may raise `Stop` to end training."""

    def __init__(self, callbacks: Sequence[Any]):
        for callback in callbacks:
            if not (hasattr(callback, "on_log") or hasattr(callback, "on_end")):
                raise UserError(f"{callback!r} is no callback, expected an object with on_log(line) or on_end(run).")
        self.callbacks = callbacks

    def on_log(self, line: Line) -> None:
        for callback in self.callbacks:
            if hasattr(callback, "on_log"):
                callback.on_log(line)

    def on_end(self, run: Run) -> None:
        for callback in self.callbacks:
            if hasattr(callback, "on_end"):
                callback.on_end(run)


class Patience:
    """Ends training after so many logged lines without a better validation number, `valid` in the line's watch.

    The number is the bound of at most 256 validation examples, nats, or for a method without one its loss; each time
    with the same noise. A continued run starts to count again.
    """

    def __init__(self, model: Model, examples: Examples, patience: int):
        self.model, self.examples, self.patience = model, examples.subset(examples.evenly(MOST)), patience
        self.best, self.waited = float("inf"), 0

    def on_log(self, line: Line) -> None:
        now = line["watch"]["valid"] = self.number()
        self.waited = 0 if now < self.best else self.waited + 1
        self.best = min(self.best, now)
        if self.waited >= self.patience:
            raise Stop(
                f"training ends at step {line['step']}: the validation split was best {self.waited} logged lines ago"
                " (train.patience)."
            )

    @torch.no_grad()
    def number(self) -> float:
        """Nats for each example with the current weights."""
        with evaluating(self.model) as device:
            index = torch.arange(len(self.examples))
            try:
                terms = self.model.bound(self.examples.batch(index, Draws.of(0, device)).to(device), 1)
            except UserError:
                terms = self.model.loss(self.examples.batch(index, Draws.of(0, device)).to(device))
        return float(torch.stack([term.float().mean() for term in terms.values()]).sum())
