"""Two processes never train in one run directory: the second says so and touches nothing."""

import os
import signal
import subprocess
import sys

import pytest

from diffrep.errors import UserError
from diffrep.runs.lock import LOCK, locked
from runs_at_hand import SMALL, content, diffrep, one_sentence

HOLD = """
import sys, time
from pathlib import Path
from diffrep.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path):
    """A run directory that another process holds, and that process."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    yield tmp_path / "run", other
    other.kill()
    other.wait()


def test_a_second_training_is_one_sentence(held, capsys):
    """Without a lock both report success and the log holds every step twice."""
    run, _ = held
    before = content(run)
    assert diffrep("train", "--data", "digits", "--method", "ae", "--out", run, *SMALL) == 2
    assert "another process" in one_sentence(capsys)
    assert content(run) == before


def test_a_killed_process_holds_nothing(held):
    """The lock is the system's: what a killed process leaves behind is an empty file, which bars nobody."""
    run, other = held
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (run / LOCK).exists()
    assert diffrep("train", "--data", "digits", "--method", "ae", "--out", run, *SMALL) == 0
    assert not (run / LOCK).exists()


def test_one_holder_at_a_time(tmp_path):
    """Held twice never, in one process neither; free again once it is let go; what was made and is empty goes."""
    run = tmp_path / "a" / "b"
    with locked(run):
        with pytest.raises(UserError, match="another process"), locked(run):
            pass
        assert (run / LOCK).exists()  # who was turned away took nothing along
        with pytest.raises(UserError), locked(run):
            pass
    assert os.listdir(tmp_path) == []
