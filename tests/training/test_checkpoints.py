"""Files of tensors are whole or absent, and whatever happened to one is noticed before it is used."""

import contextlib
import os
import pickle
import resource
import signal

import pytest
import safetensors.torch
import torch
from torch import nn

import tiny
from diffrep.errors import UserError
from diffrep.training.checkpoints import BrokenFile, Checkpoints, load_tensors, load_weights, save_tensors
from diffrep.training.ema import EMA
from diffrep.training.optimizer import load_state_tensors

pytestmark = pytest.mark.slow

TENSORS = {
    "w": torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last),
    "n": torch.tensor(7),
    "half": torch.randn(5).bfloat16(),
    "empty": torch.zeros(0, 3),
}


def names(run) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def raised(error):
    raise error


@contextlib.contextmanager
def full_disk(bytes_left: int):
    """No file may grow past so many bytes: the write fails half-way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_tensors_and_facts_come_back_exactly(tmp_path):
    """Shapes, types, bits and facts survive, whatever the memory layout was."""
    save_tensors(tmp_path / "a.safetensors", TENSORS, {"step": 3, "seconds": 0.1})
    tensors, facts = load_tensors(tmp_path / "a.safetensors")
    assert facts == {"step": 3, "seconds": 0.1} and tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], v) and tensors[k].dtype == v.dtype for k, v in TENSORS.items())


def test_a_cut_file_is_broken_wherever_it_is_cut(tmp_path):
    """A machine that loses power can leave any prefix of a file."""
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {})
    whole = path.read_bytes()
    for length in [0, 1, 8, 20, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(BrokenFile):
            load_tensors(path)


@pytest.mark.parametrize("header", ["[]", "5", "null", "{", '{"format": 1}'])
def test_a_header_that_states_something_else_is_broken(header, tmp_path):
    """Other JSON than metadata, no JSON, and metadata without a checksum."""
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"n": TENSORS["n"]}, path, metadata={"diffrep": header})
    with pytest.raises(BrokenFile):
        load_tensors(path)


def test_a_pickle_is_refused_unread(tmp_path):
    """A pickle can run any code; it must not even begin to, in place of weights or of a checkpoint."""
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return open, (str(ran), "w")

    path = tmp_path / "step-00000001.safetensors"
    for write in (lambda: torch.save(Trap(), path), lambda: path.write_bytes(pickle.dumps(Trap()))):
        write()
        with pytest.raises(BrokenFile):
            load_tensors(path)
        with pytest.raises(UserError, match="is broken"):
            Checkpoints(tmp_path).newest(print)
    assert not ran.exists()


def test_a_changed_byte_is_noticed(tmp_path):
    """One flipped bit anywhere in the data fails the checksum; so does a changed fact."""
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, {"step": 3})
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for at in [start, (start + len(whole)) // 2, len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BrokenFile, match="checksum"):
            load_tensors(path)
    path.write_bytes(whole.replace(b'\\"step\\": 3', b'\\"step\\": 4'))
    with pytest.raises(BrokenFile, match="checksum"):
        load_tensors(path)


def test_two_are_kept_and_broken_ones_are_passed_over(tmp_path):
    """The last but one is there for the day when the last is broken; when none is whole, the user must decide."""
    said: list[str] = []
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.newest(said.append) is None
    for step in (5, 10, 15):
        checkpoints.save(step, {"w": torch.full((100,), float(step))}, {})
    assert [path.name for path in checkpoints.paths()] == ["step-00000010.safetensors", "step-00000015.safetensors"]
    os.truncate(checkpoints.paths()[1], 200)
    tensors, facts = checkpoints.newest(said.append)
    assert facts["step"] == 10 and tensors["w"][0] == 10
    assert len(said) == 1 and "step-00000015" in said[0]
    checkpoints.paths()[0].write_bytes(b"")
    with pytest.raises(UserError, match="every checkpoint"):
        checkpoints.newest(said.append)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    """The write fails half-way: one sentence, no torn file, and the run can go on from what was there."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"w": torch.ones(10_000)}, {})
    with full_disk(4096), pytest.raises(UserError, match="cannot be written"):
        checkpoints.save(2, {"w": torch.zeros(10_000)}, {})
    assert os.listdir(tmp_path) == ["step-00000001.safetensors"]
    assert checkpoints.newest(print)[1]["step"] == 1


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    """A folder below a file can never be made, even by the administrator."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_tensors(tmp_path / "file" / "a.safetensors", TENSORS, {})


def test_what_a_killed_write_left_is_swept(tmp_path):
    """A temporary file of a killed process is never read, and goes with the next checkpoint."""
    (tmp_path / ".step-00000001.safetensors.tmp").write_bytes(b"half")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest(print) is None
    checkpoints.save(2, {"w": torch.ones(2)}, {})
    assert os.listdir(tmp_path) == ["step-00000002.safetensors"]


@pytest.mark.parametrize("method", ["ae", "byol"])
def test_a_kill_before_old_checkpoints_are_removed_leaves_no_more_of_them(method, tmp_path, monkeypatch):
    """The last checkpoint is written, and the run ends before the oldest is removed: continued, the run holds as many
    as an unbroken one."""

    def killed(self):
        raise KeyboardInterrupt

    changes = ("train.checkpoint_every=1",)
    steps = tiny.train(method, *changes, out=tmp_path / "unbroken").result.step
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        saves = [Checkpoints.prune] * (steps - 1) + [killed]
        patch.setattr(Checkpoints, "prune", lambda self: saves.pop(0)(self))
        tiny.train(method, *changes, out=tmp_path / "killed")
    left = names(tmp_path / "killed")
    tiny.train(method, *changes, out=tmp_path / "killed")
    assert names(tmp_path / "killed") == names(tmp_path / "unbroken") != left


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("unable to open file: (5)")])
def test_a_disk_that_fails_is_one_sentence(error, tmp_path, monkeypatch):
    """safetensors opens a file through torch, whose error is none of the operating system; others are passed on."""
    path = tmp_path / "a"
    save_tensors(path, TENSORS, {})
    monkeypatch.setattr("safetensors.safe_open", lambda *_, **__: raised(error))
    with pytest.raises(BrokenFile, match=r"cannot be read \((Input|unable)"):
        load_tensors(path)
    for other in ("not enough memory", "a mistake"):
        monkeypatch.setattr("safetensors.safe_open", lambda *_, other=other, **__: raised(RuntimeError(other)))
        with pytest.raises(RuntimeError, match=other):
            load_tensors(path)


def test_weights_of_another_model_are_refused_whole(tmp_path):
    """The first tensor that does not fit is named, and nothing has been copied."""
    save_tensors(tmp_path / "a.safetensors", nn.Linear(2, 3).state_dict(), {"weights": "ema"})
    other = nn.Linear(2, 4)
    before = other.weight.clone()
    with pytest.raises(UserError, match=r"bias.*\(4,\).*\(3,\)"):
        load_weights(other, tmp_path / "a.safetensors")
    assert torch.equal(other.weight, before)
    assert load_weights(nn.Linear(2, 3), tmp_path / "a.safetensors") == {"weights": "ema"}


def test_a_single_number_without_an_axis_is_read(tmp_path):
    """Earlier versions stored the slope of a learned noise process without one: weights, average and optimiser."""
    slope = nn.ParameterDict({"l1": nn.Parameter(torch.zeros(1))})
    save_tensors(tmp_path / "a.safetensors", {"l1": torch.tensor(3.0)}, {})
    load_weights(slope, tmp_path / "a.safetensors")
    average = EMA(slope, 0.9)
    average.load({"l1": torch.tensor(2.0)})
    steps = torch.optim.AdamW(slope.parameters())
    load_state_tensors(steps, {"0/step": torch.tensor(1.0), "0/exp_avg": torch.tensor(4.0)})
    read = slope["l1"].detach(), average.weights["l1"], steps.state[slope["l1"]]["exp_avg"]
    assert [value.tolist() for value in read] == [[3.0], [2.0], [4.0]]


def test_average_of_a_ramp():
    """With decay d the average of 1, 2, 3, ... from 0 is (n + 1) - d (1 - d^(n+1)) / (1 - d); buffers are copied."""
    model = nn.BatchNorm1d(1)
    nn.init.zeros_(model.weight)
    average, d = EMA(model, 0.09), 0.09
    for n in range(20):
        nn.init.constant_(model.weight, n + 1.0)
        model.running_mean.fill_(n)
        average.update(model, n)
        assert average.weights["weight"].item() == pytest.approx((n + 1) - d * (1 - d ** (n + 1)) / (1 - d), rel=1e-6)
        assert average.weights["running_mean"].item() == n


def test_average_forgets_the_start():
    """During the warm-up the first weights keep the share prod (1 + k) / (10 + k) = (n + 1)! 9! / (n + 10)!."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    average = EMA(model, 0.999)
    nn.init.zeros_(model.weight)
    share = 1.0
    for n in range(50):
        average.update(model, n)
        share = torch.exp(torch.lgamma(torch.tensor([n + 2.0, 10.0, n + 11.0])) @ torch.tensor([1.0, 1.0, -1.0])).item()
        assert average.weights["weight"].item() == pytest.approx(share, rel=1e-3)
    assert share < 1e-7
