"""An endless stream of batches that depends on a seed and a position alone."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from diffrep.data.examples import Examples
from diffrep.errors import UserError
from diffrep.shapes import Batch

GONE = (ConnectionError, FileNotFoundError, EOFError)  # what a connection to a process that ended raises


class Stream:
    """Shuffled batches without end: position p is example `order(seed, p // N)[p mod N]`, so epochs follow on.

    The batch that starts at position p takes [p, p + batch); shard k takes the k-th of its `shards` equal pieces. So a
    stream can start anywhere, and the shards (processes, micro-batches) together get the examples that one would get.

    batch: examples of all shards together. workers: processes that read ahead for lazily read sets; sets in memory are
    indexed on their device and need none. The batches are the same whatever the number of workers.
    """

    def __init__(
        self,
        examples: Examples,
        batch: int,
        seed: int,
        shard: int = 0,
        shards: int = 1,
        workers: int = 0,
    ):
        if batch < 1 or batch % shards:
            raise UserError(
                f"a batch of {batch} cannot be cut into {shards} equal shards: give a multiple of {shards}."
            )
        self.examples, self.size, self.seed, self.shard, self.shards = examples, batch, seed, shard, shards
        self.workers = workers if examples.lazy else 0
        self._kept: tuple[int, Tensor] | None = None

    def batches(self, start: int) -> Iterator[Batch]:
        """Batches from `start` on, the number of examples that all shards took before. Each holds batch / shards."""
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
        for read in read_ahead(loader):
            if isinstance(read, UserError):
                raise read
            yield read

    def at(self, start: int) -> Batch:
        """This shard of the batch that starts at position `start`."""
        share = self.size // self.shards
        return self.examples.batch(self._places(start + self.shard * share, share))

    def _places(self, first: int, count: int) -> Tensor:
        """Positions in the data of the stream's positions [first, first + count)."""
        total, pieces = len(self.examples), []
        while count:
            epoch, offset = divmod(first, total)
            take = min(count, total - offset)
            pieces.append(self._order(epoch)[offset : offset + take])
            first, count = first + take, count - take
        return torch.cat(pieces)

    def _order(self, epoch: int) -> Tensor:
        if self._kept is None or self._kept[0] != epoch:
            name = hashlib.sha256(f"{self.seed} {epoch}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(name[:7], "little"))
            self._kept = epoch, torch.randperm(len(self.examples), generator=generator)
        return self._kept[1]


def read_ahead(loader: DataLoader) -> Iterator[Any]:
    """What the worker processes of a loader read. UserError where one of them was ended from outside, or where the
    system gives this process no more open files.

    An end is noticed here alone, by a connection that breaks or by torch's own look after five seconds: torch's handler
    of SIGCHLD would raise wherever the program stands, in the writing of a checkpoint too. It is taken away; where the
    caller's own loader had set it before, it stays without its error.
    """
    ended = getattr(signal, "SIGCHLD", None)  # Windows has no such signal
    handler = None if ended is None else signal.getsignal(ended)
    try:
        reading = iter(loader)
        if ended is not None and handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(ended, _silent(handler))
        yield from reading
    except (RuntimeError, OSError, EOFError) as error:
        said = str(error)
        if "in DataLoader worker process" in said:  # what a worker raised itself
            raise
        if "Too many open files" in said:
            raise UserError(
                "the processes that read data hold as many open files as the system allows: take fewer train.workers,"
                " or raise the limit with `ulimit -n`; the same command continues."
            ) from error
        if isinstance(error, GONE) or "DataLoader worker (pid" in said:
            raise UserError(
                "a process that reads data was ended from outside, as systems do when memory runs out: take fewer"
                " train.workers; the same command continues."
            ) from error
        raise


def _silent(handler: Any) -> Any:
    """The handler of SIGCHLD without the error that torch's raises for a worker that was ended."""
    if getattr(handler, "__module__", None) != signal_handling.__name__:
        return handler

    def quiet(number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):
            handler(number, frame)

    return quiet


class _Reader(Dataset):
    """What a worker process runs: start -> batch, or the error as a value."""

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
