"""How long a run trains: in seconds of training, in examples, or in epochs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from diffrep.errors import UserError

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_EXAMPLES = {"ex": 1, "kex": 1_000, "mex": 1_000_000}
_EPOCHS = {"epoch", "epochs", "ep"}


@dataclass(frozen=True)
class Budget:
    """An amount of training. Examples and epochs are exact; seconds count training alone, and end with a step.

    unit: "seconds", "examples" or "epochs"; amount: how many of them, above 0.
    """

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Budget:
        """ "120s", "10m", "2h", "20000ex" or "3epochs" -> Budget; a UserError for anything else."""
        match = _FORM.fullmatch(text)
        number, word = (float(match[1]), match[2].lower()) if match else (0.0, "")
        if number > 0 and word in _SECONDS:
            return cls(number * _SECONDS[word], "seconds")
        if number * _EXAMPLES.get(word, 0) >= 1:
            return cls(int(number * _EXAMPLES[word]), "examples")
        if number > 0 and word in _EPOCHS:
            return cls(number, "epochs")
        raise UserError(
            f"the budget {text!r} cannot be read: give an amount above 0 with its unit, such as 120s, 10m, 2h, 20000ex"
            " or 3epochs."
        )

    def of(self, examples: int) -> Budget:
        """The same budget with epochs turned into examples, for a data set of this size."""
        return Budget(max(1, round(self.amount * examples)), "examples") if self.unit == "epochs" else self

    def progress(self, *, examples: int, seconds: float) -> float:
        """The share of the budget that is spent, 0 to 1."""
        if self.unit == "epochs":
            raise ValueError("the number of examples in an epoch is unknown: call .of(number of examples) first")
        return min(1.0, (examples if self.unit == "examples" else seconds) / self.amount)

    def take(self, batch: int, *, examples: int) -> int:
        """How many of the next `batch` examples still count: all, except where a budget in examples ends inside."""
        return min(batch, int(self.amount) - examples) if self.unit == "examples" else batch

    def __str__(self) -> str:
        return f"{self.amount:g}{ {'seconds': 's', 'examples': 'ex', 'epochs': 'epochs'}[self.unit] }"
