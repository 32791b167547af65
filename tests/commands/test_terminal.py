"""The terminal: what to do next, 80 columns, no colours where they are not wanted, and quiet when asked."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from diffrep.commands import console
from runs_at_hand import SMALL, diffrep, run_of


@pytest.fixture(autouse=True)
def loud(monkeypatch):
    """Consoles as they were, whatever a test asked for."""
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    yield
    os.environ.pop("TTY_COMPATIBLE", None)
    console.out.quiet = False


def test_train_ends_with_what_to_do_next(tmp_path, capsys):
    """A newcomer reads the next commands, whose path is quoted as a shell needs it."""
    out = tmp_path / "a run"
    assert diffrep("train", "--data", "digits", "--method", "ae", "--out", out, *SMALL) == 0
    assert f"diffrep evaluate '{out}'" in capsys.readouterr().out


def test_evaluate_ends_with_the_verdict_and_fits_80_columns(tmp_path, capsys):
    """Tables are not cut off in a narrow window; sentences break where the terminal breaks them."""
    run = shutil.copytree(run_of("vae-vdm"), tmp_path / "run")
    assert diffrep("evaluate", run, "--levels", 1) == 0
    said = capsys.readouterr().out
    assert "The bound on -log p(x)" in said and "\x1b" not in said
    table = said.rstrip().split("\n")[:-3]
    assert all(len(line) <= 80 for line in table), table


def test_quiet_says_nothing_and_keeps_json(capsys):
    """`-q` is for scripts: stdout holds what they asked for, or nothing."""
    run = run_of("ae")
    capsys.readouterr()
    assert diffrep("-q", "methods") == 0
    assert diffrep("--quiet", "doctor", run) == 0
    assert capsys.readouterr().out == ""
    assert diffrep("-q", "methods", "--json") == 0
    assert json.loads(capsys.readouterr().out)


def test_no_color_is_heeded_and_completion_is_offered():
    """NO_COLOR (no-color.org) leaves no colour codes even on a terminal; the shell's completion can be installed."""
    words = {**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "1", "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-m", "diffrep", "--help"], env=words, capture_output=True, text=True)
    assert "--install-completion" in re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert not any(f"\x1b[3{k}m" in done.stdout for k in range(8))
