"""Threads that compute with one thread each: many that share small operations would wait for each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
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

    before = torch.get_num_threads()

    def begin() -> None:
        torch.set_num_threads(1)  # of MKL too, which threadpoolctl does not find; of later threads too
        threadpool_limits(limits=1)  # of other OpenMPs, in this thread

    try:
        with threadpool_limits(limits=1), ThreadPoolExecutor(count, initializer=begin) as threads:  # of BLAS of all
            yield threads
    finally:
        torch.set_num_threads(before)
