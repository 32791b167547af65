"""Every method on an accelerator that this machine need not have; see `fake_gpu`."""

import subprocess
import sys
from functools import cache

import pytest

import fake_gpu
from diffrep.methods.catalog import METHODS
from every_measure import ROWS
from small import KINDS

FEW = (*KINDS, "ssm", "infodiffusion", "tvdrl")  # of each kind of model, and of each way to score or to weigh
REST = [name for name in METHODS if name not in FEW]


@cache
def said(*names: str) -> dict[str, str]:
    """What the program says of each, all in one process: it registers a device for good."""
    done = subprocess.run([sys.executable, fake_gpu.__file__, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("method", FEW)
def test_nothing_of_a_method_is_left_on_the_cpu(method):
    """Losses, gradients, codes, samples, reconstructions and the bound. A tensor made without a device, or one that
    `.to` does not move, would end a run on the first GPU that it meets."""
    assert said(*FEW, fake_gpu.LEFT)[method] == "ok"


@pytest.mark.long
@pytest.mark.parametrize("method", REST)
def test_nothing_of_the_other_methods_is_left_there(method):
    """They have the same models with other parts and settings."""
    assert said(*REST)[method] == "ok"


@pytest.mark.long
@pytest.mark.parametrize("measure", ROWS)
def test_a_measure_brings_its_data_to_the_model_and_its_numbers_back(measure):
    """Of a run on the device, with data that lie on the CPU: evaluate, probe, profile, distance and all the others."""
    assert said(*ROWS)[measure] == "ok"


def test_a_code_left_on_the_cpu_is_noticed():
    """drl whose encoder ends with `.cpu()`: the program names where it lies."""
    assert said(*FEW, fake_gpu.LEFT)[fake_gpu.LEFT].endswith("is on cpu")
