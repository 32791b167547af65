"""The short form of the faults: a few trials of every kind. `make faults` makes many."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NEVER = ("lost", "differing", "untold", "silent", "torn", "executed")


@pytest.mark.long
def test_nothing_is_lost_and_nothing_is_silent(tmp_path):
    """Killed, starved, on a broken disk, beside a second process: what was there stays, each fault is one sentence, and
    the same command ends as if nothing had been."""
    out = tmp_path / "faults.json"
    words = [sys.executable, Path(__file__).with_name("run.py"), "--short", "--out", out]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    kinds = json.loads(out.read_text())["faults"] if out.exists() else {}
    worst = {kind: entry["findings"] for kind, entry in kinds.items() if any(entry["counts"].get(n) for n in NEVER)}
    assert done.returncode == 0 and not worst, (worst, done.stderr[-2000:])
