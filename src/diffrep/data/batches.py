"""Every example of a split once, in order, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffrep.data.examples import Examples
from diffrep.errors import UserError
from diffrep.shapes import Batch, Draws, piece_seed


def batches(
    examples: Examples, size: int, seed: int, device: torch.device, rows: Tensor | None = None
) -> Iterator[Batch]:
    """Every example once, in order, the last batch as small as it comes, each with random numbers of its own.

    rows: positions of the examples that are read, all of them where left out.
    """
    if len(examples) == 0:
        raise UserError(f"the {examples.split} split of {examples.name} is empty; give it a share of the data")
    rows = torch.arange(len(examples)) if rows is None else rows
    for number, index in enumerate(rows.split(size)):
        chunk: Batch = examples.batch(index, Draws.of(piece_seed(seed, number), device)).to(device)
        yield chunk
