"""Pieces of work at once, each on one thread: many small operations on two threads wait for each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

import torch

from diffrep.progress import Part
from diffrep.threads import pool

Name = TypeVar("Name", bound=Hashable)
Made = TypeVar("Made")


class Ended(Exception):
    """Nobody waits for this piece any more."""


def at_once(
    work: Mapping[Name, Callable[[Part], Made]], said: Callable[[Name, int, int], None]
) -> Iterator[tuple[Name, Made]]:
    """(name, what it made) of each piece of work, as they end; as many run at once as torch may use threads.

    said: gets the progress of a piece, in the thread that calls. An error of a piece, and an interrupt, end all of
    them: each stops where it next tells how far it is.
    """
    count = torch.get_num_threads()
    if count < 2 or not work:
        for name, piece in work.items():
            yield name, piece(partial(said, name))
        return
    yield from _by_threads(work, said, min(count, len(work)))


def _by_threads(
    work: Mapping[Name, Callable[[Part], Made]], said: Callable[[Name, int, int], None], count: int
) -> Iterator[tuple[Name, Made]]:
    messages: SimpleQueue[Future[Made] | tuple[Name, int, int]] = SimpleQueue()
    over = Event()

    def tell(name: Name, done: int, of: int) -> None:
        if over.is_set():
            raise Ended
        messages.put((name, done, of))

    filters = warnings.catch_warnings()  # of the process: pieces that change and restore them do so by turns
    with filters, pool(count) as threads:
        names = {threads.submit(piece, partial(tell, name)): name for name, piece in work.items()}
        for future in names:
            future.add_done_callback(messages.put)
        left = len(names)
        try:
            while left:
                message = messages.get()
                if isinstance(message, Future):
                    left -= 1
                    yield names[message], message.result()
                else:
                    said(*message)
        finally:
            over.set()
            threads.shutdown(cancel_futures=True)
