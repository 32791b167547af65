"""The page of one's own method, run from a package outside of the source tree; and a check that finds what is wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import diffrep
from diffrep.testing import check_method

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorials" / "own-method.md").read_text()
LIFE = """
import sys, torch, numpy as np, diffrep
from runs_at_hand import diffrep as command
np.save("x.npy", np.random.default_rng(0).normal(size=(200, 5)))
train = ("train", "--data", "x.npy", "--method", "mine", "--set", "train.batch=16")
plain = ("--set", "train.schedule=constant", "--set", "train.warmup=0.0")
assert command(*train, "--out", "whole", "--budget", "320ex") == 0
assert command(*train, "--out", "cut", "--budget", "160ex", *plain) == 0
assert command(*train, "--out", "one", "--budget", "320ex", *plain) == 0
assert command("train", "--out", "cut", "--budget", "320ex") == 0
a, b = (diffrep.load(name).model.state_dict() for name in ("cut", "one"))
assert all(torch.equal(a[k], b[k]) for k in a)
assert command("evaluate", "whole", "--levels", "2", "--json") == 0
assert command("encode", "whole", "x.npy", "-o", "codes.parquet") == 0
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Path:
    """The files of the page in a folder of their own, with the package as an installer leaves it."""
    folder = tmp_path_factory.mktemp("outside")
    for name, text in re.findall(r"```python file=(\S+)\n(.*?)```", PAGE, re.DOTALL):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def lived(outside) -> subprocess.CompletedProcess:
    """One process runs the page, and then LIFE with the package installed."""
    info = outside / "site" / "ownmethod-0.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ownmethod\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[diffrep.methods]\nmine = ownmethod:my_recipe\n")
    (outside / "life.py").write_text(LIFE)
    paths = os.pathsep.join(map(str, (outside, outside / "site", ROOT / "src", ROOT / "tests")))
    every = "import runpy; [runpy.run_path(f'{name}.py', run_name='__main__') for name in ('use', 'loop', 'life')]"
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, "-c", every], cwd=outside, capture_output=True, text=True, env=environment)


def test_the_page_runs(outside, lived):
    """What the page says can be pasted: the method trains and is loaded, the loop runs."""
    assert "torch.Size([1, 32])" in lived.stdout, lived.stderr
    assert '"method": "ownmethod:my_recipe"' in (outside / "run" / "config.json").read_text()


def test_a_run_of_a_stranger_imports_nothing(outside, lived, monkeypatch):
    """Not installed and not handed over: one sentence, and the package that lies beside is not imported."""
    monkeypatch.chdir(outside)
    monkeypatch.syspath_prepend(outside)
    with pytest.raises(diffrep.UserError, match="install the package 'ownmethod'"):
        diffrep.load("run")
    assert "ownmethod" not in sys.modules


def test_an_installed_method_lives_as_ours_do(outside, lived):
    """Offered as an entry point: trained, stopped and continued to the same weights, evaluated, encoded."""
    assert lived.returncode == 0, lived.stderr
    assert (outside / "whole" / "method.json").read_text() == '{"method": "ownmethod:my_recipe", "version": "0.3"}\n'


@pytest.mark.parametrize("name", ["vae-vdm", "pdae", "adversarial"])
def test_our_methods_pass(name):
    """The check asks for what the methods of diffrep do."""
    check_method(name)


def _deaf(parts):
    """A method whose encoder is cut off."""
    model = diffrep.METHODS["drl"].build(parts)
    inner = model.posterior.forward
    model.posterior.forward = lambda *x: type(code := inner(*x))(code.mean.detach())
    return model


def _idle(parts):
    """A method with a layer that nothing uses."""
    model = diffrep.METHODS["drl"].build(parts)
    model.idle = torch.nn.Linear(2, 2)
    return model


@pytest.mark.parametrize("recipe, said", [(_deaf, "does not enter the loss"), (_idle, "leaves out a parameter")])
def test_what_is_wrong_is_named(recipe, said):
    """A code that is not heard and a parameter that nothing trains are found, and named."""
    with pytest.raises(AssertionError, match=said):
        check_method(recipe, {(5,): None})
