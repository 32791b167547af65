"""One process at a time writes into a directory: trains a run, encodes into parts, carries out a study."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffrep.errors import UserError
from diffrep.files import writing

LOCK = ".lock"


@contextmanager
def locked(directory: Path, what: Path | None = None) -> Iterator[None]:
    """Lock a directory, which is created if missing; UserError where another process holds the lock. what: what is
    written there, for the sentence.

    The lock is the system's (flock), so it ends with its process, killed or not; a file system without locks has none.
    New directories that stayed empty are removed at the end.
    """
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        file = _held(directory / LOCK, what or directory)
    try:
        yield
    finally:
        (directory / LOCK).unlink(
            missing_ok=True
        )  # before the lock is released, so that a waiting process finds no file
        os.close(file)
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _held(path: Path, what: Path) -> int:
    """The open file of the lock; UserError where another process holds it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            raise UserError(
                f"{what} is being written by another process: wait for it, or name another place with --out or -o."
            ) from error
        except OSError:
            return file
        if os.fstat(file).st_nlink:
            return file
        os.close(file)  # its holder removed it just now: take a new one
