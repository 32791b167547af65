"""How far long work has come: what is done, how much, of how much."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]


def silent(what: str, done: int, of: int | None) -> None:
    """Progress that nobody looks at."""


def counting(what: str, total: int, progress: Progress) -> Callable[[int], None]:
    """Adds up what is done, and tells."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(what, done, total)

    return count
