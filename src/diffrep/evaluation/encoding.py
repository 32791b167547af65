"""The codes of a split, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffrep.codes.posteriors import Code
from diffrep.data import Examples
from diffrep.data.batches import batches
from diffrep.models.base import Model, evaluating
from diffrep.shapes import Batch


def encode_batches(
    model: Model,
    examples: Examples,
    times: Sequence[float | None] = (None,),
    batch: int = 500,
    rows: Tensor | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[Batch, list[Code]]]:
    """Each batch of a split with its codes at each of `times`, in evaluation mode.

    times: of a time-conditioned code; None for all others. rows: positions in the split; None: all. UserError
    where there is no code, or where the code does not depend on t.
    """
    with evaluating(model) as device:
        for chunk in batches(examples, batch, 0, device, rows):
            yield chunk, [model.encode(chunk.x, t) for t in times]
            progress(len(chunk))


def encode_split(
    model: Model,
    examples: Examples,
    t: float | None = None,
    batch: int = 500,
    progress: Callable[[int], None] = lambda done: None,
) -> Code:
    """q(z | x) of every example, mean and spread (N, d) on the CPU; as `encode_batches`."""
    codes = [code for _, (code,) in encode_batches(model, examples, (t,), batch, progress=progress)]
    spreads = [code.spread.cpu() for code in codes if code.spread is not None]
    mean = torch.cat([code.mean.cpu() for code in codes])
    return replace(codes[0], mean=mean, spread=torch.cat(spreads) if spreads else None)
