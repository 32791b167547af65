"""The short form of the faults: a few trials of every kind. `make faults` makes many."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from faults.children import without_folders

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


def test_what_is_kept_of_a_trial_names_no_folder():
    """Paths keep their last name, whole ones and those cut at the front; other words stay."""
    said = 'File "/home/ada/env/lib/cli.py", line 3: [Errno 5] in ib/python3.11/main.py; 1 / 2'
    assert without_folders(said) == 'File "cli.py", line 3: [Errno 5] in main.py; 1 / 2'


def test_no_result_names_a_folder_of_the_machine_that_made_it():
    """Files of results are read by others: no absolute path stands in them."""
    absolute = re.compile(r"(?<![\w.:/<>-])/(?:[\w.+-]+/)+[\w.+-]+")
    results = [path for path in (Path(__file__).parents[2] / "results").iterdir() if path.suffix in (".json", ".md")]
    named = {path.name: found[0] for path in results if (found := absolute.search(path.read_text()))}
    assert len(results) > 20 and not named
