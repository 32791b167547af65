"""What training changes of a process, and that it is undone; loading and encoding change nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource
from diffrep.training.process import joined

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        bytearray(b"x") * (32 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with joined("cpu"):
    faults()
    print(faults())
print(faults())
"""

STATE = """
import os, signal, sys
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
import diffrep
from diffrep.training import memory

told = []  # what the allocator is told to keep
memory._set = lambda options, kept: told.append(options)

def state():
    tiny = torch.tensor(torch.finfo(torch.float32).smallest_normal)
    shared = [repr(sorted(s._shared_state.items(), key=lambda pair: pair[0]))
              for s in (AcceleratorState, GradientState, PartialState)]
    return [torch.get_rng_state().tolist(), shared, bool(tiny / 2 == 0), torch.get_num_threads(),
            torch.get_default_dtype(), signal.getsignal(signal.SIGINT),
            {name: value for name, value in os.environ.items() if "ACCELERATE" in name or "RANK" in name}]

mine = Accelerator(cpu=True, gradient_accumulation_steps=3)
x = torch.randn(40, 1, 4, 4).clamp(-1, 1)
before = state()
settings = ["decoder.width=4", "decoder.multipliers=[1]", "encoder.width=4", "code.dim=2", "train.device=cpu"]
diffrep.train(x.numpy(), sys.argv[1], method="drl", budget="64ex", changes=settings)
assert state() == before, "training"
assert len(told) % 2 == 0 and told[-1] == memory._GLIBC, "training keeps memory"
assert mine.num_processes == 1 and mine.gradient_accumulation_steps == 3
told.clear()
model = diffrep.load(sys.argv[1], device="cpu").model
model.encode(x)
model.sample(2, steps=2)
assert state() == before and not told, "loading"
"""


def printed(code: str, *words: str) -> list[str]:
    """The lines that a process of its own prints; it must not fail."""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def pages_are_huge() -> bool:
    """Does the kernel hand out 2 MiB at a time? Then page faults do not count memory."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return path.exists() and "[always]" in path.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc's allocator can be told")
@pytest.mark.skipif(pages_are_huge(), reason="page faults do not count memory")
def test_freed_memory_comes_again_without_page_faults():
    """32 MiB taken and freed 20 times: the kernel makes 8,192 pages each time, and inside of `joined` hardly any."""
    inside, after = (int(line) for line in printed(FAULTS))
    assert inside < 1_000 < 100_000 < after  # of 163,840


def test_a_library_leaves_the_process_as_it_was(tmp_path):
    """Whoever imports diffrep into a program of their own keeps their random numbers, their accelerate state, their
    denormals and their allocator: loading and encoding touch none, training puts back what it changed."""
    printed(STATE, str(tmp_path / "run"))
