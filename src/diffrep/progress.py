"""Progress of long work: its name, how much is done, and of how much."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
Part = Callable[[int, int], None]  # of work whose name is known: how much is done, and of how much


def silent(what: str, done: int, of: int | None) -> None:
    """Reports nothing."""


def unsaid(done: int, of: int) -> None:
    """Reports nothing."""


def counting(what: str, total: int, progress: Progress) -> Callable[[int], None]:
    """A function that adds to what is done and reports the sum."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(what, done, total)

    return count


def part_of(total: int, tell: Part) -> Callable[[int], None]:
    """The same, of work whose name is known."""
    return counting("", total, lambda _, done, of: tell(done, total))
