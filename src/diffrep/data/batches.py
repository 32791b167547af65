"""Every example of a split once, in order, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from diffrep.data.examples import Examples
from diffrep.errors import UserError
from diffrep.shapes import Batch, Draws, piece_seed


def batches(
    examples: Examples, size: int, seed: int, device: torch.device, rows: Tensor | None = None
) -> Iterator[Batch]:
    """Every example once, in order, the last batch as small as it comes, each with random numbers of its own.

    rows: positions of the examples that are read, all of them where left out. A lazily read set reads one batch ahead.
    """
    if len(examples) == 0:
        raise UserError(f"the {examples.split} split of {examples.name} is empty; give it a share of the data")
    rows = torch.arange(len(examples)) if rows is None else rows

    def read(piece: tuple[int, Tensor]) -> Batch:
        number, index = piece
        return examples.batch(index, Draws.of(piece_seed(seed, number), device))

    pieces = enumerate(rows.split(size))
    for chunk in _ahead(read, pieces) if examples.lazy else map(read, pieces):
        yield chunk.to(device)


def _ahead(read: Callable[[tuple[int, Tensor]], Batch], pieces: Iterable[tuple[int, Tensor]]) -> Iterator[Batch]:
    """What `read` makes of each piece, the next one in a thread while the last one is used."""
    with ThreadPoolExecutor(1) as thread:
        coming: Future[Batch] | None = None
        for piece in pieces:
            following = thread.submit(read, piece)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()
