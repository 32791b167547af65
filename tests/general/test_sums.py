"""The formulas of the sums in docs/large.md, held to small cases at one process and at two."""

import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import tiny
from diffrep.data.streams.order import Order
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import UNet
from diffrep.runs.encode import embed
from diffrep.training.ema import EMA
from diffrep.training.muon import kernels
from diffrep.training.optimizer import optimizer
from diffrep.training.process import Place
from diffrep.training.sharding import cut

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sums(monkeypatch):
    """benchmarks/sums.py."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import sums

    yield sums
    for name in ("sums", "machine"):
        sys.modules.pop(name, None)


@pytest.fixture
def two_processes():
    """This process is the first of two, the other one imagined: what would be sent is not."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield Place(0, 2, torch.device("cpu"))
    torch.distributed.destroy_process_group()


def small():
    return build(tiny.settings("drl"), Facts((1, 4, 4), 2))


def held(model) -> int:
    """Bytes of weights, gradient, average and optimiser that this process holds after a step."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    groups = {"all": list(model.parameters())}
    steps = optimizer(groups, kernels(model.modules()), lr=1e-3, beta1=0.9, beta2=0.99, weight_decay=0.0)
    steps.step()
    average = EMA(model, 0.9).weights
    tensors = [t for p in model.parameters() for t in (p, p.grad)] + [average[n] for n, _ in model.named_parameters()]
    tensors += [t for state in steps.state.values() for name, t in state.items() if name != "step"]
    return sum(t.to_local().nbytes if hasattr(t, "to_local") else t.nbytes for t in tensors)


def test_memory_of_training(sums):
    model = small()
    assert held(model) == sums.training(sums.net_of(model))


def test_memory_of_training_in_two_parts(sums, two_processes):
    """A weight is cut along its first axis; one of odd length gives the first process a row more."""
    model = small()
    assert held(cut(model, two_processes)) == pytest.approx(sums.training(sums.net_of(model), 2), rel=0.05)


@pytest.mark.slow
def test_a_checkpoint_on_disk(sums):
    """Beside the weights stand the header, buffers, and a step of 4 bytes for each weight."""
    run = tiny.base("drl")
    file = sorted((run.directory / "checkpoints").iterdir())[-1].read_bytes()
    buffers = 2 * sum(buffer.nbytes for buffer in run.model.buffers())
    tensors = len(file) - 8 - int.from_bytes(file[:8], "little") - buffers
    steps = 4 * len([*run.model.parameters()])
    assert tensors - steps == pytest.approx(sums.checkpoint(sums.net_of(run.model)), rel=0.01)


@pytest.mark.slow
def test_a_column_of_codes(sums, tmp_path):
    run = tiny.base("drl")
    embed(run.model, run.splits().test, tmp_path / "codes.parquet")
    column = pq.read_table(tmp_path / "codes.parquet").column("code")
    marks = len(column) * 4 / 8  # a bit for each number: it is there
    assert sum(chunk.values.nbytes for chunk in column.chunks) - marks == sums.codes(len(column), 4)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_blocks_of_a_stream(sums, processes):
    """Each process has the blocks of its own lanes."""
    order = Order((100_000,), 64, seed=0)
    assert order.block * order.lanes // processes * 12 == sums.buffer(12, processes)


def test_a_step_is_three_forward_passes(sums):
    """Of the products and convolutions that torch counts; the first layer needs no gradient of its input."""
    import machine

    model = UNet((3, 16, 16), 16, conditioning=Conditioning(4))
    arguments = (torch.randn(8, 3, 16, 16), torch.zeros(8), torch.randn(8, 4))
    with torch.no_grad():
        forward = machine.flops(lambda: model(*arguments))
    step = machine.flops(lambda: model(*arguments).sum().backward())
    net = sums.Net(0, 0, forward)
    assert step / sums.SPEED == pytest.approx(sums.seconds(net, 1), rel=0.1)


def test_the_page_says_what_the_script_prints(sums):
    out = StringIO()
    with redirect_stdout(out):
        sums.main()
    page = (ROOT / "docs" / "large.md").read_text()
    said, stated = out.getvalue(), r"[\d,.]+ (?:million weights|GFLOP|GB here)"
    assert [line for line in said.splitlines() if line.startswith(("|", "A checkpoint")) and line not in page] == []
    assert [number for number in re.findall(stated, said) if number not in page] == []
