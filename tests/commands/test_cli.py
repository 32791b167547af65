"""The command line: each method does what it can, each mistake is one sentence with exit code 2, and costs nothing."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from diffrep.cli import app
from diffrep.commands import console
from diffrep.files import unsealed
from diffrep.methods.catalog import METHODS
from runs_at_hand import SMALL, content, diffrep, one_sentence, run_of
from samples import GREY, write_folder


@pytest.mark.parametrize("method", METHODS)
def test_a_method_does_what_it_can_and_says_what_it_cannot(method, tmp_path, capsys):
    """What a method has, by the catalogue, is what its run can do; for the rest there is one sentence."""
    run, picture, has = run_of(method), tmp_path / "out.png", METHODS[method]
    few_digits = tmp_path / "few.npy"
    np.save(few_digits, load_digits().images[:20].astype(np.uint8))
    few = ("-o", picture) if has.noise is None else ("-o", picture, "--steps", 2)
    can = {
        "encode": (("encode", run, few_digits, "-o", tmp_path / "c.parquet"), has.has_code),
        "reconstruct": (("reconstruct", run, few_digits, "-n", 2, *few), has.has_code and has.decodes),
        "exact": (("reconstruct", run, few_digits, "-n", 2, "--exact", *few), has.noise is not None),
        "sample": (("sample", run, "-n", 2, *few), has.decodes),
        "interpolate": (("interpolate", run, 0, 1, "--points", 3, *few), has.has_code and has.decodes),
    }
    for what, (words, able) in can.items():
        capsys.readouterr()
        picture.unlink(missing_ok=True)
        assert diffrep(*words) == (0 if able else 2), what
        if not able:
            one_sentence(capsys)
        assert picture.exists() == (able and what != "encode"), what


@pytest.mark.parametrize("method", ["vae-vdm", "vdm", "drl", "ae", "simclr"])
def test_metrics_hold_what_is_promised_and_parts_add_up(method, capsys):
    """The contract of metrics.json; a bound is the sum of its parts, and without one no number bears its name."""
    run = run_of(method)
    capsys.readouterr()
    assert diffrep("evaluate", run, "--levels", 1, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics == unsealed(run / "metrics.json")
    assert metrics["examples"] == 359 and metrics["protocol"]
    if not METHODS[method].has_bound:
        assert metrics["bound"] is None and metrics["rate_nats"] is None and "code" in metrics["no_bound"]
        assert (metrics["denoising"] is None) == (METHODS[method].noise is None)
    else:
        bound = metrics["bound"]
        parts = sum(bound[name] for name in ("diffusion", "prior", "reconstruction", "rate"))
        assert bound["bits_per_dim"] == pytest.approx(parts, rel=1e-5) and bound["bits_per_dim_se"] > 0
    assert ("linear" in metrics["probes"]) == METHODS[method].has_code


@pytest.mark.parametrize("method, chain", [("vdm", True), ("vae", False)])
def test_a_finite_chain_is_reported_beside_continuous_time(method, chain, tmp_path, capsys):
    """Both bounds under their own names, of the same ends; a method without noise has no chain, whatever is set."""
    run = tmp_path / "run"
    assert diffrep("train", "--data", "digits", "--method", method, "--out", run, *SMALL, "--set", "noise.steps=3") == 0
    capsys.readouterr()
    assert diffrep("evaluate", run, "--levels", 3) == 0
    assert ("in 3 steps" in capsys.readouterr().out) == chain
    metrics = json.loads((run / "metrics.json").read_text())
    assert ("bound_in_steps" in metrics) == chain
    if chain:
        whole, short = metrics["bound"], metrics["bound_in_steps"]
        assert short["steps"] == 3 and short["protocol"] != metrics["protocol"]
        assert all(short[name] == whole[name] for name in ("prior", "reconstruction", "rate"))
        assert short["bits_per_dim"] > whole["bits_per_dim"]


@pytest.mark.long
@pytest.mark.parametrize("method, able", [("vae-vdm", True), ("vae", True), ("drl", False), ("vdm", False)])
def test_refined_codes_are_told_or_why_not(method, able, capsys):
    """Beside the encoder's bound, never in its place; a code without a bound, or none, is one sentence in the table."""
    assert diffrep("evaluate", run_of(method), "--levels", 1, "--json") == 0
    plain = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert diffrep("evaluate", run_of(method), "--levels", 1, "--refine", 2) == 0
    said = capsys.readouterr().out
    metrics = json.loads((run_of(method) / "metrics.json").read_text())
    assert "refined codes" in said and ("refined" in metrics) == able == ("no_refined" not in metrics)
    assert metrics["bound"] == plain["bound"] and metrics["rate_nats"] == plain["rate_nats"]
    if able:  # the gain, in bits for a number, is what lies between the two bounds
        better, shape = metrics["refined"], metrics["shape"]
        gain = better["gap_nats"] / (math.prod(shape) * math.log(2))
        assert better["bits_per_dim"] == pytest.approx(plain["bound"]["bits_per_dim"] - gain)
        assert better["steps"] == 2 and better["rate_nats"] != plain["rate_nats"]


MISTAKES = {
    "nowhere": "no file or folder",
    "digit": "Did you mean 'digits'",
    "empty": "holds no pictures",
    "cut": "--skip-bad",
    "mixed": "expected one size",
    "single": "expected at least 3",
    "wide.npy": "expected [0, 1]",
    "nan.npy": "NaN",
    "words.npy": "cannot be read",
}


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Broken data, each named after what is wrong with it, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    write_folder(Path("cut"), GREY)
    whole = Path("cut/0003.png").read_bytes()
    Path("cut/0003.png").write_bytes(whole[: len(whole) // 2])
    write_folder(Path("mixed"), GREY)
    Image.fromarray(GREY[0, :4]).save("mixed/z.png")
    write_folder(Path("single"), GREY[:1])
    values = np.random.default_rng(0).normal(0, 9, (9, 8, 8))
    np.save("wide.npy", values)
    values[4, 2, 2] = np.nan
    np.save("nan.npy", values)
    Path("words.npy").write_text("words")
    return tmp_path


@pytest.mark.parametrize("source", MISTAKES)
def test_bad_data_is_one_sentence_and_nothing_is_written(source, sources, capsys):
    """Whoever reads the sentence knows what to mend; a directory left half made would be in the way."""
    assert diffrep("train", "--data", source, "--out", "run", *SMALL) == 2
    assert MISTAKES[source] in one_sentence(capsys)
    assert not Path("run").exists()


def test_skip_bad_trains_and_counts(sources, capsys):
    """One of twelve pictures is cut short: eleven are left."""
    assert diffrep("train", "--data", "cut", "--out", "run", "--skip-bad", *SMALL) == 0
    assert "1 file could not be read" in capsys.readouterr().out
    assert sum(json.loads(Path("run/data.json").read_text())["examples"].values()) == 11
    with pytest.warns(UserWarning, match=r"1 file of cut could not be read\."):
        assert diffrep("encode", "run", "cut", "-o", "codes.parquet", "--skip-bad") == 0
    assert "11 codes in codes.parquet" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [
        (("--method", "vae_vdm"), "Did you mean 'vae-vdm'"),
        (("--set", "train.lrr=1"), "Did you mean 'train.lr'"),
        (("--set", "train.lr=fast"), "number"),
        (("--budget", "12"), "120s"),
        (("--detail", "hgh-noise"), "high-noise"),
        (("--set", "train.precision=fp16"), "GPU"),
        (("--set", "train.accumulate=5"), "multiple of 5"),
        (("--set", 'train.trackers=["tensorbord"]'), "Did you mean 'tensorboard'"),
        (("--set", "data.label_column=kind"), "label_column"),
        (("--config", "none.toml"), "none.toml"),
    ],
)
def test_bad_settings_are_one_sentence_and_nothing_is_written(words, said, tmp_path, monkeypatch, capsys):
    """What was wrong is named, the nearest right name with it, before a file is touched."""
    monkeypatch.chdir(tmp_path)
    assert diffrep("train", "--data", "digits", "--out", "run", *SMALL, *words) == 2
    assert said in one_sentence(capsys)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("words", [("trian",), ("train",), ("sample", "a", "--stps", "3"), ("sample", "a", "-n", "0")])
def test_words_that_do_not_parse_are_one_sentence(words, capsys):
    """The parser's own boxes are held to the same rule as the rest."""
    assert diffrep(*words) == 2
    assert "--help" in one_sentence(capsys)


@pytest.mark.parametrize(
    "words, said",
    [
        (("sample", "--codes", "seven.npy"), "(4, 32)"),
        (("sample", "--codes", "flat.npy"), "no codes"),
        (("sample", "--codes", "nan.npy"), "NaN"),
        (("sample", "--codes", "none.npy"), "none.npy"),
        (("sample", "--sampler", "dmp"), "Did you mean 'dpm'"),
        (("interpolate", 0, 9999), "0 to 358"),
        (("interpolate", 0, "nowhere.png"), "nowhere.png"),
        (("reconstruct", "other.npy"), "expected 0 to 16"),
        (("reconstruct", "digits", "--exact", "--sampler", "ddim"), "--exact"),
        (("reconstruct", "digits", "--exact", "--seed", "0"), "--exact"),
    ],
)
def test_wrong_inputs_for_a_run_are_one_sentence(words, said, tmp_path, monkeypatch, capsys):
    """Codes of the wrong size, data of another shape, names that are none: said before a picture is written."""
    run = run_of("vae-vdm")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    np.save("seven.npy", np.zeros((4, 7), np.float32))
    np.save("flat.npy", np.zeros(32, np.float32))
    np.save("nan.npy", np.full((4, 32), np.nan, np.float32))
    np.save("other.npy", GREY)
    before = content(tmp_path)
    command, *rest = words
    assert diffrep(command, run, *rest, "-o", "out.png") == 2
    assert said in one_sentence(capsys)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "words",
    [("sample", "--steps", 9), ("interpolate", 0, 1, "--sampler", "dpm"), ("reconstruct", "digits", "--per-code", 2)],
)
def test_a_sampler_for_a_model_that_needs_none_is_a_mistake(words, tmp_path, capsys):
    """An autoencoder decodes at once, so nothing would come of it."""
    run = run_of("ae")
    capsys.readouterr()
    command, *rest = words
    assert diffrep(command, run, *rest, "-o", tmp_path / "out.png") == 2
    assert "at once" in one_sentence(capsys)
    assert diffrep("reconstruct", run, "digits", "-o", tmp_path / "out.png") == 0


@pytest.mark.parametrize("place", ["note.txt/out.png", "out.xyz", "/proc/none/out.png"])
def test_an_output_that_has_no_place_is_one_sentence(place, tmp_path, monkeypatch, capsys):
    """Below a file, another kind of file, a file system that takes none."""
    run = run_of("vae-vdm")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    Path("note.txt").write_text("keep")
    assert diffrep("sample", run, "-n", 1, "--steps", 1, "-o", place) == 2
    assert place in one_sentence(capsys)
    assert content(tmp_path) == {"note.txt": b"keep"}


def test_json_stands_alone_on_stdout(tmp_path, capsys):
    """Machines read stdout: one object and nothing else."""
    assert diffrep("train", "--data", "digits", "--method", "ae", "--out", tmp_path / "r", *SMALL, "--json") == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 64
    assert diffrep("methods", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    facts = {"name", "summary", "paper", "noise", "has_code", "decodes", "has_bound", "twin"}
    assert [m["name"] for m in listed] == list(METHODS) and all(set(m) == facts for m in listed)


def test_every_command_shows_an_example(capsys):
    """A first use is copied from the help, so every page has a line to copy that begins as one would type it."""
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert diffrep(name, "--help") == 0
        assert f"Example: diffrep {name}" in " ".join(capsys.readouterr().out.split())


def test_ctrl_c_outside_of_training_is_one_sentence(monkeypatch, capsys):
    """130 is what shells give for Ctrl-C."""

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffrep.runs.load", stop)
    assert diffrep("evaluate", "anything") == 130
    assert "interrupted" in one_sentence(capsys)


def test_a_bar_appears_late_and_only_on_a_terminal(monkeypatch):
    """Nothing is drawn where nobody watches, or where it is over before one would wonder."""
    shown = []
    monkeypatch.setattr(console, "PATIENCE", 0.05)
    monkeypatch.setattr(console.Progress, "start", lambda self: shown.append(1))
    with console.progress() as update:
        update("work", 0, 10)
        _sleep(0.15)
    assert not shown
    monkeypatch.setattr(console.err, "_force_terminal", True)
    with console.progress() as update:
        update("work", 10, 10)
    assert not shown
    with console.progress() as update:
        update("work", 0, None)
        _sleep(0.15)
    assert shown


def _sleep(seconds: float) -> None:
    import time

    time.sleep(seconds)


def test_the_module_runs():
    """`python -m diffrep` is what torchrun starts."""
    done = subprocess.run([sys.executable, "-m", "diffrep", "trian"], capture_output=True, text=True)
    assert done.returncode == 2 and "Did you mean 'train'" in done.stderr and done.stderr.count("\n") == 1


def test_one_process_alone_runs_a_study(capsys, monkeypatch, tmp_path):
    """Under torchrun each process would make every run; what several processes share goes on."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert diffrep("study", tmp_path / "a.toml", "-o", tmp_path / "a") == 2
    assert "study works in one process" in one_sentence(capsys)
    assert diffrep("encode", tmp_path / "run", tmp_path / "a.h5ad", "-o", tmp_path / "b.h5ad") == 2
    assert "2 processes would each write it" in one_sentence(capsys)
    assert diffrep("train", "--data", "none", "--method", "ae", "--out", tmp_path / "a", "--budget", "8ex") == 2
    assert "one process" not in one_sentence(capsys)
