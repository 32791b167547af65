"""The scripts that wait for another machine, gone through in small on this one."""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    """benchmarks/ as a place to import from."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in ("gpu", "bench", "machine", "record", "samplers"):
        sys.modules.pop(name, None)


def test_operations_are_counted_by_hand(scripts):
    """(3, 4) times (4, 5): 2 * 3 * 4 * 5; a 3x3 convolution: 2 * 9 * channels in * channels out for each pixel."""
    import machine

    a, b = torch.randn(3, 4), torch.randn(4, 5)
    x, w = torch.randn(2, 3, 8, 8), torch.randn(6, 3, 3, 3)
    assert machine.flops(lambda: a @ b) == 2 * 3 * 4 * 5
    assert machine.flops(lambda: torch.conv2d(x, w, padding=1)) == 2 * 9 * 3 * 6 * 2 * 64


@pytest.mark.slow
def test_a_part_that_is_made_is_not_made_again(scripts, tmp_path, monkeypatch):
    """Stopped in the second part, the same call makes the rest; other settings make all anew."""
    import gpu

    made, broken = [], True

    def part(name: str):
        def work() -> dict:
            if name == "b" and broken:
                raise KeyboardInterrupt
            made.append(name)
            return {"name": name}

        return work

    monkeypatch.setattr(gpu, "parts", lambda scene: ((name, part(name)) for name in "abc"))
    scene, out = gpu.Scene("cpu", tmp_path, None, None, tiny=True), tmp_path / "gpu.json"
    with pytest.raises(KeyboardInterrupt):
        gpu.made(scene, [], out)
    assert [*json.loads(out.read_text())["parts"]] == ["a"]
    broken = False
    assert [*gpu.made(scene, [], out)["parts"]] == [*"abc"] and made == [*"abc"]
    gpu.made(gpu.Scene("cpu", tmp_path, None, None), ["c"], out)
    assert made == [*"abcc"] and [*json.loads(out.read_text())["parts"]] == ["c"]
    with pytest.raises(SystemExit, match="no such parts"):
        gpu.made(scene, ["d"], out)


def test_every_part_for_a_gpu_has_a_name(scripts, tmp_path):
    """Smoke, throughput, five trainings and nine cells of the capacity study."""
    import gpu

    assert len(dict(gpu.parts(gpu.Scene("cpu", tmp_path, "digits", "digits", tiny=True)))) == 2 + 5 + 9


@pytest.mark.long
def test_the_parts_for_a_gpu_run_in_small(scripts, tmp_path):
    """A training with few labels, a cell of the capacity study, and the throughput; `smoke` is what other tests do."""
    import gpu

    scene = gpu.Scene("cpu", tmp_path, "digits", "digits", tiny=True)
    work = dict(gpu.parts(scene))
    assert len(work) == 2 + 5 + 9
    trained, cell, speed = (work[name]() for name in ("cifar10-drl", "capacity-mvdm-held", "throughput"))
    assert trained["examples"] == 64 and {"few-1", "few-2", "linear", "knn"} <= trained["scores"].keys()
    assert cell["bound"]["bits_per_dim"] > 0 and cell["rate_nats"] > 0
    assert speed["bf16"]["examples_per_second"] > 0


def test_a_table_of_samplers_marks_what_is_good_enough(scripts):
    """Bold: at most the distance of the reference and both errors, sqrt(3^2 + 4^2) = 5, above it."""
    import samplers

    rows = [
        {"sampler": "ancestral", "steps": 250, "spacing": "log-snr", "frechet": 10.0, "se": 3.0},
        {"sampler": "dpm", "steps": 5, "spacing": "edm", "frechet": 15.1, "se": 4.0},
        {"sampler": "dpm", "steps": 8, "spacing": "edm", "frechet": 14.9, "se": 4.0},
    ]
    assert samplers.table(rows).splitlines()[2:] == ["| dpm | edm | 15.1 | **14.9** |"]
