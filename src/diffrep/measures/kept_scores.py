"""Scores of reference features, kept for all runs on the same data in the user's cache."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from diffrep.errors import UserError
from diffrep.files import plain, sealed, unsealed, write_bytes
from diffrep.probes.result import Result


def cache() -> Path:
    """The folder of the scores: in DIFFREP_CACHE, by default ~/.cache/diffrep. Whoever removes it loses time alone."""
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("DIFFREP_CACHE") or users / "diffrep") / "references"


def kept(key: str, stamp: Mapping[str, object]) -> Result | None:
    """The score under a key; None where there is none, or its file is broken or does not bear the stamp."""
    try:
        found = unsealed(_path(key))
    except (OSError, ValueError):
        return None
    ours = isinstance(found, dict) and all(found.get(name) == value for name, value in stamp.items())
    return cast(Result, found) if ours else None


def keep(key: str, result: Result) -> str | None:
    """Write a score, whole or not at all; the complaint where that fails, which is no error, since nothing is lost."""
    try:
        write_bytes(_path(key), sealed(plain(result)))
    except UserError as error:
        return f"scores of references are not kept for other runs: {error}"
    return None


def _path(key: str) -> Path:
    return cache() / f"{key}.json"
