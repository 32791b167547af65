"""An endless stream of batches from shards, which depends on a seed and a position alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from diffrep.data.loader import read_ahead
from diffrep.data.readers.tables import together
from diffrep.data.reading import Reading
from diffrep.data.splits import whole
from diffrep.data.streams.order import LANES, Lane, Order, Row
from diffrep.data.streams.shards import Shards
from diffrep.errors import UserError
from diffrep.shapes import Batch


class ShardStream:
    """As `diffrep.data.Stream`, from shards of which a block for each lane is in memory at a time.

    A batch holds as many rows of each lane, lane by lane; process k of `processes` reads the k-th part of the lanes
    alone, and so do its worker processes among themselves. reading: how rows become examples. skip_bad: a picture that
    cannot be read is replaced by the next one of its block that can.
    """

    def __init__(
        self,
        shards: Shards,
        reading: Reading,
        batch: int,
        seed: int,
        shard: int = 0,
        processes: int = 1,
        workers: int = 0,
        skip_bad: bool = False,
    ):
        lanes = max(n for n in range(1, min(LANES, batch, len(shards)) + 1) if batch % n == 0)
        if lanes % processes:
            raise UserError(
                f"a stream with a batch of {batch} has {lanes} lanes, which {processes} processes cannot share: give a"
                f" batch that is a multiple of {processes * (LANES // processes) or processes}."
            )
        self.shards, self.reading, self.skip_bad = shards, reading.for_other(), skip_bad
        self.order = Order(tuple(one.count for one in shards.shards), lanes, seed)
        share = lanes // processes
        self.mine, self.each = range(shard * share, (shard + 1) * share), batch // lanes
        self.workers = min(workers, share)

    def batches(self, start: int) -> Iterator[Batch]:
        """Batches from `start` on, the number of examples that all processes took before. Each holds batch /
        processes."""
        first = -(-start // self.order.lanes)
        if not self.workers:
            yield from self._of(self.mine, first)
        read = read_ahead(
            DataLoader(_Lanes(self, first), batch_size=None, num_workers=self.workers, generator=torch.Generator())
        )
        while True:
            yield _joined([_checked(next(read)) for _ in range(self.workers)])

    def _of(self, lanes: range, first: int) -> Iterator[Batch]:
        """What these lanes give to each batch, from position `first` of each lane on."""
        several = [Lane(self.shards.shards, self.order, lane).rows(first) for lane in lanes]
        while True:
            rows = [row for lane in several for row in islice(lane, self.each)]
            try:
                batch = self._batch(rows)
            except UserError:
                if not self.skip_bad:
                    raise
                batch = self._batch([self._readable(row) for row in rows])
            yield batch

    def _readable(self, row: Row) -> Row:
        """The row, or the next one of its block that can be read. UserError: there is none."""
        reasons = []
        for one in row.onwards():
            try:
                self._batch([one])
            except UserError as error:
                reasons.append(error)
            else:
                return one
        raise reasons[0]

    def _batch(self, rows: Sequence[Row]) -> Batch:
        table = together([row.table for row in rows], self.shards.name)
        batch = whole(table, reading=self.reading).batch(torch.arange(len(rows)))
        return Batch(batch.x, torch.tensor([row.place for row in rows]), batch.label, None, batch.covariate)


class _Lanes(IterableDataset):
    """What a worker process runs: its lanes' part of each batch, or the error as a value."""

    def __init__(self, stream: ShardStream, first: int):
        self.stream, self.first = stream, first

    def __iter__(self) -> Iterator[Batch | UserError]:
        info = torch.utils.data.get_worker_info()
        assert info is not None
        lanes = np.array_split(np.array(self.stream.mine), info.num_workers)[info.id]
        try:
            yield from self.stream._of(range(int(lanes[0]), int(lanes[-1]) + 1), self.first)
        except UserError as error:
            while True:
                yield error


def _checked(part: Batch | UserError) -> Batch:
    if isinstance(part, UserError):
        raise part
    return part


def _joined(parts: list[Batch]) -> Batch:
    def cat(name: str) -> torch.Tensor | None:
        several = [getattr(part, name) for part in parts]
        return None if any(one is None for one in several) else torch.cat(several)

    x, index = torch.cat([part.x for part in parts]), torch.cat([part.index for part in parts])
    return Batch(x, index, cat("label"), None, cat("covariate"))
