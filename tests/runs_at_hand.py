"""The command line in this process, and small runs made once for all tests."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from diffrep import cli

SMALL = ("--budget", "64ex", "--set", "train.batch=32", "--set", "decoder.width=8", "--set", "encoder.width=8")


def diffrep(*words: object) -> int:
    """`diffrep WORDS` in this process; its exit code."""
    before, sys.argv = sys.argv, ["diffrep", *map(str, words)]
    try:
        cli.main()
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        sys.argv = before
    return 0


@cache
def run_of(method: str, data: str = "digits") -> Path:
    """A run of two steps, shared: tests read it and change copies."""
    out = Path(mkdtemp(prefix="diffrep-tests-")) / "run"
    quick = ("--set", "prior.kind=normal") if method == "diffae" else ()  # its own takes longer than all other runs
    assert diffrep("train", "--data", data, "--method", method, "--out", out, *SMALL, *quick) == 0
    return out


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr, which must be one line of ours."""
    said = capsys.readouterr().err
    assert said.startswith("diffrep: ") and said.endswith("\n") and said.count("\n") == 1, said
    return said


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, byte by byte."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
