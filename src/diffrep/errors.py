"""The error for a mistake of the user: one sentence that says what was expected, what came and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LONGEST = 300  # characters of another library's error


class UserError(ValueError):
    """Shown by the command line as one sentence with exit code 2; in Python it is a ValueError."""


def unknown(kind: str, name: str, names: Iterable[str], hint: str = "", near: Sequence[str] = ()) -> UserError:
    """The error for a name that is not in a list, with those that are near; by default the one most alike."""
    names = sorted(names)
    near = near or get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return UserError(f"unknown {kind} {name!r}.{guess} {hint or 'Known: ' + ', '.join(names) + '.'}")


def reason_of(error: BaseException) -> str:
    """What the error of another library says, for the middle of a sentence: its first line, else its kind. One that
    quotes the bytes of a file is cut."""
    said = getattr(error, "strerror", None) or str(error)
    line = (str(said).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
    return line if len(line) <= LONGEST else line[:LONGEST] + "..."


def lacks_memory(error: BaseException) -> bool:
    """Did memory run out? NumPy and Arrow raise a MemoryError, torch a RuntimeError that says so."""
    words = ("not enough memory", "out of memory", "allocate memory", "bad_alloc", "start new thread")
    said = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    return said or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
