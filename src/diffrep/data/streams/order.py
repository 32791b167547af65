"""The order of a stream: which row comes at which position, by the seed alone, from any position on.

The rows of each epoch, in a new order of the shards, are cut into equal lanes, which are read side by side: an example
of a batch comes from each lane in turn. In a lane, blocks of `buffer` rows are read one after another, and each is
shuffled. So processes and workers read lanes of their own, memory holds a block for each lane, and a stream can start
anywhere: it reads the block that it starts in.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from diffrep.amounts import amount
from diffrep.data.readers.tables import together
from diffrep.data.streams.shards import Shard
from diffrep.errors import UserError

LANES = 64  # at most
BUFFER = 4096  # examples that all lanes together hold


@dataclass(frozen=True)
class Order:
    """How rows of shards follow one another in a number of equal lanes.

    Fewer rows than there are lanes are left out of an epoch, others in each.
    """

    counts: tuple[int, ...]
    lanes: int
    seed: int

    @property
    def length(self) -> int:
        """Rows of a lane in an epoch."""
        return sum(self.counts) // self.lanes

    @property
    def block(self) -> int:
        """Rows of a lane that are shuffled among each other."""
        return max(1, min(BUFFER // self.lanes, self.length))

    def spans(self, lane: int, epoch: int, block: int) -> list[tuple[int, int, int]]:
        """(shard, first row, last row + 1) of the rows of a block before they are shuffled."""
        first = lane * self.length + block * self.block
        last = min(first + self.block, (lane + 1) * self.length)
        shards, ends = self._shards(epoch)
        spans = []
        while first < last:
            place = bisect_right(ends, first)
            begins = ends[place - 1] if place else 0
            end = min(last, ends[place])
            spans.append((int(shards[place]), first - begins, end - begins))
            first = end
        return spans

    def shuffled(self, lane: int, epoch: int, block: int, count: int) -> np.ndarray:
        """(count,) the order of the rows of a block."""
        return _generator(self.seed, epoch, lane, block).permutation(count)

    @lru_cache(maxsize=4)  # noqa: B019  an order lives as long as its stream
    def _shards(self, epoch: int) -> tuple[np.ndarray, list[int]]:
        """The shards in the order of an epoch, and where each ends."""
        shards = _generator(self.seed, epoch).permutation(len(self.counts))
        return shards, np.cumsum(np.array(self.counts)[shards]).tolist()


@dataclass(frozen=True)
class Block:
    """Rows of a lane that are shuffled among each other: as they lie in their shards, each one's place among all rows,
    and the order in which they come."""

    table: pa.Table
    places: np.ndarray
    order: np.ndarray


@dataclass(frozen=True)
class Row:
    """The row of a block that comes as number `at`."""

    block: Block
    at: int

    @property
    def table(self) -> pa.Table:
        return self.block.table.slice(int(self.block.order[self.at]), 1)

    @property
    def place(self) -> int:
        """Among all rows."""
        return int(self.block.places[self.block.order[self.at]])

    def onwards(self) -> Iterator[Row]:
        """This row, those that come after it in its block, then those before it."""
        count = len(self.block.order)
        return (Row(self.block, (self.at + i) % count) for i in range(count))


class Lane:
    """A lane of a stream, read from any position on. rows_read: how many were taken from the shards."""

    def __init__(self, shards: Sequence[Shard], order: Order, lane: int):
        self.shards, self.order, self.lane = shards, order, lane
        self.starts = np.cumsum([0, *(shard.count for shard in shards)])
        self.rows_read = 0
        self._at: tuple[int, int] | None = None  # the shard that is open, and the row that comes next
        self._coming: Iterator[pa.Table] = iter(())
        self._left: pa.Table | None = None

    def rows(self, start: int) -> Iterator[Row]:
        """The rows from position `start` of the lane on, without end."""
        epoch, place = divmod(start, self.order.length)
        block, skip = divmod(place, self.order.block)
        while True:
            read = self._block(epoch, block)
            yield from (Row(read, at) for at in range(skip, len(read.order)))
            block, skip = block + 1, 0
            if block * self.order.block >= self.order.length:
                epoch, block = epoch + 1, 0

    def _block(self, epoch: int, block: int) -> Block:
        spans = self.order.spans(self.lane, epoch, block)
        tables = [self._read(shard, first, last) for shard, first, last in spans]
        places = np.concatenate([self.starts[shard] + np.arange(first, last) for shard, first, last in spans])
        table = together(tables, self.shards[spans[0][0]].url)
        return Block(table, places, self.order.shuffled(self.lane, epoch, block, len(places)))

    def _read(self, shard: int, first: int, last: int) -> pa.Table:
        """Rows of a shard, which stays open for those that follow."""
        if self._at != (shard, first):
            self._coming, self._left = self.shards[shard].tables(first), None
        parts, wanted = [], last - first
        while wanted:
            table = self._left if self._left is not None and len(self._left) else next(self._coming, None)
            if table is None:
                raise UserError(
                    f"{self.shards[shard].url} ends before its {amount(self.shards[shard].count, 'row')}: it was"
                    " changed, or sizes.json beside it is wrong; mend it, and the same command continues."
                )
            parts.append(table.slice(0, wanted))
            wanted, self._left = wanted - len(parts[-1]), table.slice(len(parts[-1]))
        self._at, self.rows_read = (shard, last), self.rows_read + last - first
        return pa.concat_tables(parts)


def _generator(*numbers: int) -> np.random.Generator:
    """Random numbers of a place in a stream."""
    name = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return np.random.default_rng(int.from_bytes(name[:8], "little"))
