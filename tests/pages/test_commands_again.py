"""Every result names the options that made it: the commands of a report give the same numbers again."""

import inspect
import json
import shlex
import shutil

import numpy as np
import pytest
import typer

from diffrep.cli import app
from diffrep.measures import disentangle, distance, evaluate, profile, readout, semi
from diffrep.pages.run_files import FLAGS, MEASURES, RunFiles
from runs_at_hand import SMALL, diffrep

FILES = {command: file for file, command in MEASURES.items()}
FREE = {"--data", "--device", "--json"}  # where the data lie, where it is computed, and what is printed
ASKED = {  # command -> the method of a run, and a value that is not the default of each option that moves numbers
    "evaluate": ("vdm", {"--levels": 1, "--flow": 1, "--refine": 1}),
    "probe": (
        "tvdrl",
        {
            "--labels": "tilt",
            "--protocols": "knn,few,spreading",
            "--few": "1,2",
            "--t": 0.1234567,
            "--draws": 2,
            "--most": 50,
            "--seed": 1,
        },
    ),
    "profile": ("tvdrl", {"--levels": 2, "-n": 9}),
    "distance": (
        "tvdrl",
        {"--features": "run:run", "-n": 21, "--sampler": "heun", "--steps": 2, "--spacing": "time", "--seed": 1},
    ),
    "disentangle": ("tvdrl", {"--t": 0.3, "--most": 20}),
    "readout": ("tvdrl", {"--levels": 1, "--search": 20, "--most": 30, "--seed": 1}),
    "times": ("tvdrl", {"--times": "1,2", "--epochs": 1, "--seeds": 2, "--most": 30}),
    "semi": ("tvdrl", {"--labels-per-class": 1, "--seeds": 2, "--steps": 1, "--most": 30, "--budget": "9m"}),
}
NAMED_BY = {"--budget": "--steps"}  # an option whose effect another one names
MEASURED = {
    "evaluate": evaluate.evaluate,
    "profile": profile.profile,
    "distance": distance.distance,
    "disentangle": disentangle.disentangle,
    "readout": readout.read_layers,
    "times": readout.read_times,
    "semi": semi.semi,
}


def options_of(command: str) -> dict[str, object]:
    """Each option of a command and its default, without those that move no number."""
    parameters = typer.main.get_command(app).commands[command].params
    options = {one.opts[0]: one.default for one in parameters if one.param_type_name == "option"}
    return {name: default for name, default in options.items() if name not in FREE}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each method, on pictures of two classes of each label and factor."""
    folder = tmp_path_factory.mktemp("again")
    draw = np.random.default_rng(0)
    x, label, tilt = draw.normal(size=(240, 4, 4)).astype("float32"), np.arange(240) % 2, np.arange(240) // 2 % 2
    np.savez(folder / "data.npz", x=np.tanh(x + label[:, None, None]), label=label, tilt=tilt)
    for method in ("vdm", "tvdrl"):
        more = ("--set", "code.drop=0.1") if method == "tvdrl" else ()
        words = ("train", "--data", folder / "data.npz", "--method", method, "--out", folder / method / "run")
        assert diffrep(*words, *SMALL, *more) == 0
    return folder


@pytest.mark.parametrize("command", FILES)
def test_every_option_has_a_value_here(command):
    """An option that is added to a command fails here, until the report names it."""
    options = ASKED[command][1]
    assert options.keys() == options_of(command).keys()
    assert all(str(value) != str(options_of(command)[name]) for name, value in options.items())


@pytest.mark.parametrize("command", MEASURED)
def test_the_defaults_are_those_of_the_command(command):
    """What is not named is the default of the function, so the command must have the same."""
    usual = {name: one.default for name, one in inspect.signature(MEASURED[command]).parameters.items()}
    argument = {flag: name for (file, name), flag in FLAGS.items() if file == FILES[command]}
    for flag, default in options_of(command).items():
        name = argument.get(flag, flag.strip("-").replace("-", "_"))
        if name in usual:
            own = usual[name]
            assert (",".join(map(str, own)) if isinstance(own, tuple) else own) == default, flag


@pytest.mark.slow
@pytest.mark.parametrize("command", FILES)
def test_a_command_of_the_report_gives_the_same_numbers_again(command, runs, tmp_path, monkeypatch):
    """Every option that was given is named, with its value, and the command writes the very same file."""
    monkeypatch.setattr(evaluate, "MOST_STEPS", 2)
    method, options = ASKED[command]
    run = shutil.copytree(runs / method / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    file = run / FILES[command]
    file.unlink(missing_ok=True)
    assert diffrep(command, run, *[word for pair in options.items() for word in pair]) == 0
    (line,) = [one for one in RunFiles.of(run).commands() if one.startswith(f"diffrep {command} ")]
    words = shlex.split(line)
    named = dict(zip(words[3::2], words[4::2], strict=True))
    assert named == {name: str(value) for name, value in options.items() if name not in NAMED_BY}
    before = json.loads(file.read_text())
    file.unlink()
    assert diffrep(*words[1:]) == 0
    assert json.loads(file.read_text()) == before


@pytest.mark.slow
def test_probes_of_several_seeds_are_several_commands(runs, tmp_path):
    """Each number of draws and each seed of them has its own, and what is drawn once stands in the first alone."""
    run = shutil.copytree(runs / "tvdrl" / "run", tmp_path / "run")
    for words in (("--few", 1, "--draws", 2), ("--few", 2, "--draws", 3, "--seed", 4, "--protocols", "few,svm")):
        assert diffrep("probe", run, *words) == 0
    named = [one for one in RunFiles.of(run).commands() if one.startswith("diffrep probe ")]
    assert named == [
        f"diffrep probe {run} --protocols linear,knn,svm,few --few 1 --draws 2",
        f"diffrep probe {run} --few 2 --draws 3 --seed 4",
    ]
