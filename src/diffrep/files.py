"""Files are written at once, so that after a crash one holds the old content or the new; and facts as JSON with a
checksum."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from diffrep.errors import UserError

SEAL = "checksum"  # of a file of JSON, over everything else that it states


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


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turns an OSError inside the `with` block into a UserError about `what` was read."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{what} cannot be read ({error.strerror or error}): check that it is whole and that its disk is there."
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `path` at the end of the `with` block: whole or absent.

    It may become a file or a folder; a folder takes no other one's place. After an error inside the block nothing is
    left of it. Processes and machines that write the same file do not meet, and what a killed process of this machine
    has left goes with the next one that is written. UserError: as `writing`.
    """
    temporary = path.with_name(f".{path.name}.{_writer()}-{secrets.token_hex(4)}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
            if _is_dead(left.name.rsplit(".", 2)[1]):
                _remove(left)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            _remove(temporary)
            raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _writer(process: int | None = None) -> str:
    """The machine and the process, as they stand in the name of a temporary file."""
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    return f"{machine}-{os.getpid() if process is None else process}"


def _is_dead(writer: str) -> bool:
    """Is the process that made a temporary file of this machine, and surely gone?"""
    process = writer.split("-")[1] if writer.count("-") == 2 else ""
    if os.name != "posix" or not process.isdecimal() or not writer.startswith(_writer(int(process)) + "-"):
        return False
    try:
        os.kill(int(process), 0)  # signal 0 asks alone
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces a file in one step: after a crash it holds the old or the new content."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    with writing(path):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def plain(facts: Any) -> Any:
    """Facts as JSON can say them: null for what is not a number, or infinite."""
    if isinstance(facts, dict):
        return {name: plain(value) for name, value in facts.items()}
    if isinstance(facts, (list, tuple)):
        return [plain(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def sealed(facts: Mapping[str, Any]) -> bytes:
    """Facts as JSON with a checksum over all of them, which `unsealed` compares. It is the first line, so that the rest
    is JSON without it."""
    facts = json.loads(json.dumps(facts))  # as they are read back: names are texts
    return (json.dumps({SEAL: _checksum(facts), **facts}, indent=2) + "\n").encode()


def unsealed(path: Path) -> Any:
    """The content of a file of JSON without its checksum, where it has one. ValueError: it is no JSON, or not what was
    written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if isinstance(content, dict) and SEAL in content and content.pop(SEAL) != _checksum(content):
        raise ValueError(
            f"it was changed after it was written; put back a copy, or take out its line {SEAL!r} if you changed it on"
            " purpose"
        )
    return content


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()
