"""Writing of files at once: after a crash a file holds the old content or the new, never a part of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffrep.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError inside the `with` block into a UserError about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{path} cannot be written ({reason}): free some space or pick a directory that may be written to; what was"
            " saved before is intact."
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file in one step: after a crash it holds the old or the new content."""
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
