"""The order of batches is a function of the seed and the place."""

from __future__ import annotations

import multiprocessing
import os
import signal
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from diffrep.data import Stream, load
from diffrep.errors import UserError
from samples import COLOUR, write_folder


def indices(stream: Stream, start: int, count: int) -> list[list[int]]:
    return [batch.index.tolist() for batch in islice(stream.batches(start), count)]


def test_each_epoch_holds_each_example_once():
    """Across the ends of epochs nothing is dropped or doubled, and each epoch has its own order."""
    part = load("digits").valid.subset(torch.arange(35))
    order = [i for batch in indices(Stream(part, batch=8, seed=3), 0, 35) for i in batch]
    epochs = [order[i : i + 35] for i in range(0, 8 * 35, 35)]
    assert all(sorted(epoch) == list(range(35)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8
    assert order[:8] != indices(Stream(part, batch=8, seed=4), 0, 1)[0]
    larger = indices(Stream(part, batch=80, seed=3), 0, 2)
    assert larger[0] + larger[1] == order[:160]  # a batch may be larger than the data


def test_shards_and_continued_streams_are_one_stream():
    """Shards laid side by side are the whole batch; a start anywhere continues what an unbroken stream gives."""
    part = load("digits").valid
    whole_stream = indices(Stream(part, batch=12, seed=0), 0, 40)
    cut = [indices(Stream(part, batch=12, seed=0, shard=k, shards=3), 0, 40) for k in range(3)]
    assert [a + b + c for a, b, c in zip(*cut, strict=True)] == whole_stream
    assert indices(Stream(part, batch=12, seed=0), 12 * 17, 23) == whole_stream[17:]
    with pytest.raises(UserError, match="multiple of 5"):
        Stream(part, batch=12, seed=0, shard=0, shards=5)


def test_batches_hold_their_examples():
    """x and label are those of the positions in `index`."""
    part = load("digits").valid
    batch = next(Stream(part, batch=16, seed=0).batches(0))
    assert batch.draws is None and batch.x.dtype == torch.float32
    for x, i, label in zip(batch.x, batch.index, batch.label, strict=True):
        assert torch.equal(x, part.batch(i[None]).x[0]) and label == part.labels[i]


def test_workers_change_nothing(tmp_path, monkeypatch):
    """Worker processes read ahead the same batches, and starting them draws nothing from the global generator."""
    monkeypatch.setattr("diffrep.data.albums.SMALL", 0)
    part = load(write_folder(tmp_path, COLOUR)).train
    alone = list(islice(Stream(part, batch=5, seed=1).batches(10), 4))
    state = torch.get_rng_state()
    ahead = list(islice(Stream(part, batch=5, seed=1, workers=2).batches(10), 4))
    assert torch.equal(state, torch.get_rng_state())
    for a, b in zip(alone, ahead, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.index, b.index)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UserError, match="cannot be read") as error:
        next(Stream(part, batch=5, seed=1, workers=1).batches(0))
    assert "Traceback" not in str(error.value)


@pytest.fixture
def torch_first():
    """A loader of the caller has set torch's handler of SIGCHLD before; afterwards all is as it was."""
    before, signal_handling._SIGCHLD_handler_set = signal.getsignal(signal.SIGCHLD), False
    assert list(DataLoader(range(2), num_workers=1)) == [0, 1]
    assert signal.getsignal(signal.SIGCHLD) is not before
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.slow
def test_the_handler_of_another_loader_is_silent_too(tmp_path, monkeypatch, torch_first):
    """Torch sets its handler once, so that of a loader of the caller would raise for the readers of a run."""
    test_a_reader_that_is_killed_is_noticed_where_a_batch_is_asked_for(tmp_path, monkeypatch, as_before=False)


@pytest.mark.slow
def test_a_reader_that_is_killed_is_noticed_where_a_batch_is_asked_for(tmp_path, monkeypatch, as_before=True):
    """And nowhere else: what the program does in between is not disturbed by the signal that a child ended."""
    monkeypatch.setattr("diffrep.data.albums.SMALL", 0)
    before = signal.getsignal(signal.SIGCHLD)
    batches = Stream(load(write_folder(tmp_path, COLOUR)).train, batch=5, seed=1, workers=1).batches(0)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # `join` would take from torch's handler what it looks at
    assert sum(range(10**6)) == 499999500000
    assert not as_before or signal.getsignal(signal.SIGCHLD) is before
    with pytest.raises(UserError, match="the same command continues"):
        for _ in range(5):  # some were read before
            next(batches)
