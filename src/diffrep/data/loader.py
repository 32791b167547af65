"""An endless order of batches that depends on a seed and a place alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diffrep.data.examples import Examples
from diffrep.errors import UserError
from diffrep.shapes import Batch, expand


class Stream:
    """Shuffled batches without end: position p is example `order(seed, p // N)[p mod N]`, so epochs follow on.

    The batch that starts at position p takes [p, p + batch), over all parts; part k takes the k-th of `parts` equal
    runs of it. So a stream can start anywhere, and parts (processes, accumulated pieces) together see what one would.

    batch: examples of all parts together. workers: processes that read ahead for lazily read sets; sets in memory are
    indexed on their device and need none. flip: mirrors the last axis of every other example, by chance. The batches
    are the same whatever the number of workers.
    """

    def __init__(
        self,
        examples: Examples,
        batch: int,
        seed: int,
        part: int = 0,
        parts: int = 1,
        workers: int = 0,
        flip: bool = False,
    ):
        if batch < 1 or batch % parts:
            raise UserError(f"a batch of {batch} cannot be cut into {parts} equal parts: give a multiple of {parts}.")
        if flip and len(examples.shape) < 2:
            raise UserError(f"flip mirrors pictures and {examples.name} holds vectors: leave it out.")
        self.examples, self.size, self.seed, self.part, self.parts = examples, batch, seed, part, parts
        self.workers, self.flip = workers if examples.lazy else 0, flip
        self._kept: tuple[int, Tensor, Tensor] | None = None

    def batches(self, start: int) -> Iterator[Batch]:
        """Batches from `start` on, the number of examples that all parts have seen before. Each holds batch / parts."""
        if not self.workers:
            while True:
                yield self.at(start)
                start += self.size
        loader = DataLoader(
            _Reader(self),
            sampler=_Starts(start, self.size),
            batch_size=None,
            num_workers=self.workers,
            generator=torch.Generator(),  # its own, or each start would draw from the global one
        )
        for read in loader:
            if isinstance(read, UserError):
                raise read
            yield read

    def at(self, start: int) -> Batch:
        """This part's share of the batch that starts at position `start`."""
        share = self.size // self.parts
        index, mirrored = self._places(start + self.part * share, share)
        batch = self.examples.batch(index)
        if not self.flip:
            return batch
        mirror = expand(mirrored.to(batch.x.device), batch.x)
        return replace(batch, x=torch.where(mirror, batch.x.flip(-1), batch.x))

    def _places(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Positions in the data, and whether to mirror, of the stream's positions [first, first + count)."""
        total, pieces = len(self.examples), []
        while count:
            epoch, offset = divmod(first, total)
            order, mirrored = self._order(epoch)
            take = min(count, total - offset)
            pieces.append((order[offset : offset + take], mirrored[offset : offset + take]))
            first, count = first + take, count - take
        return torch.cat([order for order, _ in pieces]), torch.cat([mirrored for _, mirrored in pieces])

    def _order(self, epoch: int) -> tuple[Tensor, Tensor]:
        if self._kept is None or self._kept[0] != epoch:
            name = hashlib.sha256(f"{self.seed} {epoch}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(name[:7], "little"))
            order = torch.randperm(len(self.examples), generator=generator)
            self._kept = epoch, order, torch.rand(len(order), generator=generator) < 0.5
        return self._kept[1], self._kept[2]


class _Reader(Dataset):
    """What a worker process runs: start -> batch, or the error, handed over as it is."""

    def __init__(self, stream: Stream):
        self.stream = stream

    def __getitem__(self, start: int) -> Batch | UserError:
        try:
            return self.stream.at(start)
        except UserError as error:
            return error


class _Starts:
    """start, start + step, ... without end."""

    def __init__(self, start: int, step: int):
        self.start, self.step = start, step

    def __iter__(self) -> Iterator[int]:
        start = self.start
        while True:
            yield start
            start += self.step
