"""Files are whole or absent, also where two processes write one, and nothing of a killed one stays."""

import os
import subprocess
import sys
import threading
import warnings

import pytest

from diffrep.data.pictures import quietly
from diffrep.files import replacing, write_bytes


def test_two_processes_that_write_one_file_do_not_meet(tmp_path):
    """While this one writes, another writes the same file whole; then it holds what came last, and nothing else is
    there."""
    path = tmp_path / "a.json"
    with replacing(path) as temporary:
        temporary.write_text("half")
        other = (
            f"from diffrep.files import write_bytes; from pathlib import Path; write_bytes(Path({str(path)!r}), b'x')"
        )
        subprocess.run([sys.executable, "-c", other], check=True)
        assert path.read_text() == "x"
        temporary.write_text("whole")
    assert path.read_text() == "whole" and [*tmp_path.iterdir()] == [path]


def test_what_a_killed_process_left_goes_with_the_next_file(tmp_path):
    """A temporary file of a process that has ended is removed, be it a folder; of one that lives it stays, and so does
    that of another file, and of another machine, whose processes nobody knows here."""
    with replacing(tmp_path / "a.json") as temporary:
        machine = temporary.name.split(".")[3].split("-")[0]
        temporary.touch()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = [tmp_path / f".a.json.{machine}-{process}-aa.tmp" for process in (gone.pid, 2**70)]
    names = (f"a.json.{machine}-{os.getppid()}-aa", f"b.json.{machine}-{gone.pid}-aa", f"a.json.other-{gone.pid}-aa")
    kept = [tmp_path / f".{name}.tmp" for name in (*names, "a.json.old", f"a.json.{gone.pid}")]
    for file in (left[0], *kept):
        file.write_text("half")
    left[1].mkdir()
    (left[1] / "half").touch()
    write_bytes(tmp_path / "a.json", b"whole")
    assert not any(file.exists() for file in left) and all(file.exists() for file in kept)


def test_a_folder_is_whole_or_absent(tmp_path):
    """As a file: what an error leaves inside of it goes."""
    with pytest.raises(ValueError), replacing(tmp_path / "a") as temporary:
        temporary.mkdir()
        (temporary / "half").touch()
        raise ValueError
    assert not [*tmp_path.iterdir()]


def test_a_thread_leaves_the_filters_of_warnings_alone():
    """They are those of the process: a thread that put back old ones would change what others are told."""
    before = warnings.filters[:]
    inside = []

    def look():
        with quietly():
            inside.append(warnings.filters[:])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert inside == [before]
    with quietly():
        assert warnings.filters[0][0] == "ignore"
