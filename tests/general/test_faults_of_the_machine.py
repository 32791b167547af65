"""What a machine does to files and memory is one sentence, and a changed number is never taken for the one written."""

import errno
import json
import signal

import numpy as np
import pytest
import torch

from diffrep import cli
from diffrep.data import load
from diffrep.data.feature_files import read_codes
from diffrep.data.loader import read_ahead
from diffrep.errors import UserError, lacks_memory
from diffrep.files import sealed, unsealed
from diffrep.runs.lock import locked

FACTS = {"bits": 1.25, "names": ["a", "b"], "none": None, "more": {"seed": 3}, "weights": "0f" * 8}


def test_every_changed_byte_of_a_file_of_json_is_found_or_harmless(tmp_path):
    """One bit of each byte in turn: the file is refused, or says what it said."""
    path, content = tmp_path / "a.json", sealed(FACTS)
    path.write_bytes(content)
    assert unsealed(path) == FACTS
    for at in range(len(content)):
        for bit in (1, 16):
            path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
            try:
                read = unsealed(path)
            except ValueError:
                continue
            assert {name: read.get(name) for name in FACTS} == FACTS, (at, bit)


def test_names_that_are_numbers_have_the_checksum_that_is_read_back(tmp_path):
    """JSON makes texts of them, which sort in another order: 10 comes before 2."""
    (tmp_path / "a.json").write_bytes(sealed({"few": {2: 0.5, 10: 0.75}}))
    assert unsealed(tmp_path / "a.json") == {"few": {"2": 0.5, "10": 0.75}}


def test_a_file_without_a_checksum_is_taken_as_it_is(tmp_path):
    """Files of older versions have none, and whoever changes one on purpose takes its line out, as the error says."""
    (tmp_path / "a.json").write_text(json.dumps(FACTS))
    assert unsealed(tmp_path / "a.json") == FACTS
    lines = sealed(FACTS).decode().replace("1.25", "1.5").splitlines()
    (tmp_path / "a.json").write_text("\n".join(line for line in lines if '"checksum"' not in line))
    assert unsealed(tmp_path / "a.json") == {**FACTS, "bits": 1.5}
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ValueError):
        unsealed(tmp_path / "a.json")


@pytest.mark.parametrize(
    "error, said",
    [
        (MemoryError("Unable to allocate 9 GiB"), "memory ran out"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"), "memory ran out"),
        (torch.OutOfMemoryError("CUDA out of memory."), "memory ran out"),
        (OSError(errno.EIO, "Input/output error", "x.npy"), "x.npy cannot be read or written"),
        (OSError(errno.ENOSPC, "No space left on device", "x.npy"), "x.npy cannot be written"),
    ],
)
def test_what_the_machine_lacks_is_one_sentence(error, said, monkeypatch, capsys):
    """Exit code 2 and no traceback; a mistake of ours keeps its traceback."""

    def fail(**_):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2 and said in capsys.readouterr().err


def test_mistakes_of_ours_are_not_hidden(monkeypatch):
    """Another RuntimeError, another OSError."""
    assert not lacks_memory(RuntimeError("size mismatch"))
    for error in (RuntimeError("size mismatch"), FileNotFoundError(errno.ENOENT, "No such file", "x")):

        def fail(error=error, **_):
            raise error

        monkeypatch.setattr(cli, "app", fail)
        with pytest.raises(type(error)):
            cli.main()


@pytest.mark.parametrize(
    "error, kind, said",
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), UserError, "the same command"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), UserError, "the same command"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), UserError, "the same command"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), UserError, "ended from outside"),
        (EOFError(), UserError, "the same command"),
        (OSError(errno.EMFILE, "Too many open files"), UserError, "ulimit"),
        (RuntimeError("Too many open files. Communication with the workers is no longer"), UserError, "ulimit"),
        (OSError(errno.EIO, "Input/output error"), OSError, "Input/output"),
        (RuntimeError("other"), RuntimeError, "other"),
        (OSError("Caught OSError in DataLoader worker process 0."), OSError, "Caught"),
    ],
    ids=str,
)
def test_a_reader_that_was_ended_is_one_sentence(error, kind, said):
    """Whatever torch and Python say where a worker is gone, at the start too; other errors are passed on."""

    class Broken:
        def __iter__(self):
            raise error

    class Loader:
        def __iter__(self):
            yield 1
            raise error

    for loader in (Loader(), Broken()):
        with pytest.raises(kind, match=said) as raised:
            list(read_ahead(loader))
        assert type(raised.value) is kind


def test_data_are_read_ahead_where_there_is_no_signal_of_children(monkeypatch):
    """As on Windows."""
    monkeypatch.delattr(signal, "SIGCHLD")
    assert list(read_ahead([1, 2])) == [1, 2]


def test_what_is_being_written_is_named(tmp_path):
    """The lock of the parts of codes speaks of the file."""
    held = (tmp_path / ".c.parts", tmp_path / "c.parquet")
    with locked(*held), pytest.raises(UserError, match=r"c\.parquet is being written by another"), locked(*held):
        pass


@pytest.mark.parametrize("change", [(b"}", b" "), (b"'descr'", b"\x00descr'"), (b"(9,", b"(9e"), (b"<f8", b"<f9")])
def test_a_header_of_numpy_that_is_broken_is_one_sentence(change, tmp_path):
    """NumPy's reader of headers raises whatever Python's own tokenizer and parser do."""
    np.save(tmp_path / "a.npy", np.zeros((9, 4, 4)))
    content = (tmp_path / "a.npy").read_bytes().replace(*change, 1)
    (tmp_path / "a.npy").write_bytes(content)
    for read in (load, read_codes):
        with pytest.raises(UserError, match=r"a\.npy"):
            read(tmp_path / "a.npy")
