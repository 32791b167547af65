"""The codes of a split, in its order.

A matrix product sums in another order for another number of rows, which moves a code by about 1e-6 (measured: 1.3e-6 at
most). So networks always encode `AT_ONCE` examples: an example has the same code, bit for bit, alone and among others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffrep.codes.posteriors import Code
from diffrep.data import Examples
from diffrep.data.batches import batches
from diffrep.models.base import Model, evaluating
from diffrep.shapes import Batch, Data
from diffrep.threads import in_order

AT_ONCE = 64  # examples that a network encodes at a time, the last of them repeated where there are fewer


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
        chunks = batches(examples, batch, 0, device, rows)
        for chunk, codes in in_order(lambda chunk: [encoded(model, chunk.x, t) for t in times], chunks, device):
            yield chunk, codes
            progress(len(chunk))


def encoded(model: Model, x: Data, t: float | None = None) -> Code:
    """q(z | x) of x (N, *shape), N >= 1: `Model.encode`, the same for an example whatever stands beside it."""
    parts = []
    for part in x.split(AT_ONCE):
        if lacking := AT_ONCE - len(part):
            part = torch.cat([part, part[-1:].expand(lacking, *part.shape[1:])])
        parts.append(model.encode(part, t))
    return _joined(parts, len(x))


def encode_split(
    model: Model,
    examples: Examples,
    t: float | None = None,
    batch: int = 500,
    progress: Callable[[int], None] = lambda done: None,
) -> Code:
    """q(z | x) of every example, mean and spread (N, d) on the CPU; as `encode_batches`."""
    parts = encode_batches(model, examples, (t,), batch, progress=progress)
    codes = [replace(c, mean=c.mean.cpu(), spread=None if c.spread is None else c.spread.cpu()) for _, (c,) in parts]
    return _joined(codes, len(examples))


def _joined(codes: Sequence[Code], count: int) -> Code:
    """The first `count` of codes that follow one another."""
    spreads = [code.spread for code in codes if code.spread is not None]
    mean = torch.cat([code.mean for code in codes])[:count]
    return replace(codes[0], mean=mean, spread=torch.cat(spreads)[:count] if spreads else None)
