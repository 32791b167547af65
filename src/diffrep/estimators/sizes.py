"""Sizes and budget of a fit for arguments of "auto", by the number of rows."""

from __future__ import annotations

import math

from diffrep.config import DecoderSettings, EncoderSettings, Settings
from diffrep.shapes import Shape

EXAMPLES = (4_000, 100_000)  # least and most examples of training for a budget of "auto"
EPOCHS = 200  # passes over the rows in between


def sizes(rows: int, shape: Shape, asked: dict[str, object]) -> dict[str, object]:
    """Settings by their dotted names for so many rows of such a shape, those `asked` for (not "auto") among them.

    Few rows allow few weights: networks have their usual width from 800 rows on; a code has at least two numbers, at
    most one for every ten rows, and at most as many as an example. The budget is counted in examples, so that a search
    is the same on every machine.
    """
    usual = Settings()
    numbers = math.prod(shape)
    own = {
        "code.dim": max(2, min(usual.code.size(shape), numbers, rows // 10)),
        "decoder.width": _width(rows, DecoderSettings().width),
        "encoder.width": _width(rows, EncoderSettings().width),
        "train.batch": max(1, min(usual.train.batch, rows // 4)),
        "train.budget": f"{min(max(EPOCHS * rows, EXAMPLES[0]), EXAMPLES[1])}ex",
    }
    return own | {name: value for name, value in asked.items() if value != "auto"}


def _width(rows: int, usual: int) -> int:
    """A multiple of 4, from 4 for few rows to the usual width."""
    return max(4, min(usual, usual * rows // 800 // 4 * 4))
