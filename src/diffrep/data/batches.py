"""Every example of a split once, in order, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from diffrep.data.examples import Examples
from diffrep.errors import UserError
from diffrep.shapes import Batch, Draws


def batches(examples: Examples, size: int, seed: int, device: torch.device) -> Iterator[Batch]:
    """Every example once, in order, the last batch as small as it comes, each with random numbers of its own."""
    if len(examples) == 0:
        raise UserError(f"the {examples.split} split of {examples.name} is empty; give it a share of the data")
    for number, index in enumerate(torch.arange(len(examples)).split(size)):
        draws = Draws.of(seed * 1_000_003 + number, device)
        chunk: Batch = examples.batch(index, draws).to(device)
        yield chunk
