"""Threads that compute with one thread each: many that share small operations would wait for each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")
MOST = 16  # items that are made at once


def in_order(make: Callable[[Item], Made], items: Iterable[Item], device: torch.device) -> Iterator[tuple[Item, Made]]:
    """(item, what `make` makes of it) of each item, in their order and without gradients.

    On a CPU as many are made at once as torch may use threads, at most `MOST`, which all lie in memory; items are read
    no further ahead than that.
    """
    make, count = torch.no_grad()(make), min(torch.get_num_threads(), MOST) if device.type == "cpu" else 1
    if count < 2:
        for item in items:
            yield item, make(item)
        return
    waiting: deque[tuple[Item, Future[Made]]] = deque()
    with pool(count) as threads:
        try:
            for item in items:
                waiting.append((item, threads.submit(make, item)))
                if len(waiting) > count:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for item, future in waiting:
                yield item, future.result()
        finally:
            threads.shutdown(cancel_futures=True)


@contextmanager
def pool(count: int) -> Iterator[ThreadPoolExecutor]:
    """`count` threads, in each of which all libraries compute with one."""
    from threadpoolctl import threadpool_limits

    def begin() -> None:
        torch.set_num_threads(1)  # of MKL too, which threadpoolctl does not find; of later threads too
        threadpool_limits(limits=1)  # of other OpenMPs, in this thread

    with _one_thread, ThreadPoolExecutor(count, initializer=begin) as threads:
        yield threads


class _OneThread:
    """BLAS with one thread while a pool is open, and after the last one torch and BLAS as they were before the first.

    Both are of the process, and several threads of a program may each have a pool.
    """

    def __init__(self) -> None:
        self.lock, self.open = Lock(), 0

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits

        with self.lock:
            if not self.open:
                self.before, self.limits = torch.get_num_threads(), threadpool_limits(limits=1)
            self.open += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.open -= 1
            if not self.open:
                self.limits.restore_original_limits()
                torch.set_num_threads(self.before)


_one_thread = _OneThread()
