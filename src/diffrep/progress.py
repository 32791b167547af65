"""Progress of long work: its name, how much is done, and of how much."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]


def silent(what: str, done: int, of: int | None) -> None:
    """Reports nothing."""


def counting(what: str, total: int, progress: Progress) -> Callable[[int], None]:
    """A function that adds to what is done and reports the sum."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(what, done, total)

    return count
