"""The report of a run: whole, honest about what is missing, and in one file that asks nobody for anything."""

import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from diffrep.config import Settings
from diffrep.files import unsealed
from diffrep.pages import run_pictures
from diffrep.pages.judgement import verdict
from diffrep.pages.run_files import RunFiles
from diffrep.pages.run_page import report
from diffrep.runs.records import METRICS, PROBES, keep, weights_digest
from diffrep.training.checkpoints import load_tensors
from runs_at_hand import SMALL, diffrep, one_sentence, run_of

VOID = {"img", "meta", "link", "br", "input", "rect", "line", "circle", "polyline", "polygon"}


class Reader(HTMLParser):
    """What a page holds: its sections, its pictures, what it would load, and whether its tags are closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.titles, self.unnamed, self.loaded, self.ids = [], [], [], [], []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        has = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if (tag == "img" and "alt" not in has) or (tag == "svg" and has.get("role") == "img" and not has["aria-label"]):
            self.unnamed.append(has)
        if "id" in has:
            self.ids.append(has["id"])
        self.loaded += [v for name in ("src", "href") if (v := has.get(name)) and not v.startswith(("data:", "#"))]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.titles.append(data.strip())
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words += data + " "


def read(path) -> Reader:
    """A page, held to what every page promises."""
    text = path.read_text()
    found = Reader(text)
    assert found.open == [] and found.unnamed == [] and found.loaded == []
    assert len(set(found.ids)) == len(found.ids)
    assert not re.search(r"https?://|@import|fetch\(|\bNaN\b|\bnan\b|\bNone\b", re.sub(r'"data:[^"]*"', "", text))
    assert path.stat().st_size < 3_000_000
    return found


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Few steps and few dots: what a page is made of is the same."""
    for name, value in {"STEPS": 2, "MAPPED": 30, "SEARCHED": 60, "SAMPLES": 8, "POINTS": 3, "EXAMPLES": 4}.items():
        monkeypatch.setattr(run_pictures, name, value)


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """A run on two-channel signals in two classes."""
    folder = tmp_path_factory.mktemp("waves")
    at, speed = np.linspace(0, 6, 32), np.arange(60) % 2 + 1
    x = np.stack([np.sin(at * speed[:, None]), np.cos(at * speed[:, None])], 1).astype("float32")
    np.savez(folder / "waves.npz", x=x, label=speed)
    assert diffrep("train", "--data", folder / "waves.npz", "--method", "drl", "--out", folder / "run", *SMALL) == 0
    return folder / "run"


@pytest.mark.parametrize("method", ["vae-vdm", "vdm", "ae", "simclr"])
def test_a_run_that_nobody_measured_reads_well(method, tmp_path):
    """Each section shows something or says why not, and what is missing stands there with its command."""
    run = shutil.copytree(run_of(method), tmp_path / "bare run")
    for file in run.glob("*.json"):
        if file.name not in ("config.json", "data.json"):
            file.unlink()
    found = read(report(run))
    assert {"What was trained", "The bound on -log p(x)", "Training", "Make it again"} <= set(found.titles)
    quoted = f"'{run}'"
    assert f"diffrep evaluate {quoted}" in found.words  # a path with a blank is quoted as a shell needs it
    if method != "vdm":
        assert "Map of the codes" in found.titles


def test_a_run_with_everything_measured_shows_the_numbers_of_its_files(tmp_path, capsys):
    """The page says what the files say, and offers no command for what is there."""
    run = shutil.copytree(run_of("vae-vdm"), tmp_path / "run")
    for words in (("evaluate", run, "--levels", 1), ("probe", run), ("profile", run, "--levels", 4, "-n", 40)):
        assert diffrep(*words) == 0
    assert diffrep("report", run) == 0
    assert str(run / "report.html") in capsys.readouterr().out
    found, metrics = read(run / "report.html"), json.loads((run / "metrics.json").read_text())
    assert f"{metrics['bound']['bits_per_dim']:.4f}" in found.words
    assert f"{json.loads((run / 'profile.json').read_text())['integral_nats']:.1f}" in found.words
    assert "write the report again" not in found.words
    assert "untrained encoder" in found.words and "denoised with the code" in found.words


def test_signals_are_lines(waves):
    """A signal of two channels is drawn as two lines in a panel, never as a picture."""
    text = report(waves).read_text()
    panels = re.findall(r'<g transform="translate[^>]*><rect class="panel".*?</g>', text)
    assert len(panels) > 20 and all(panel.count("<polyline") == 2 for panel in panels)
    read(waves / "report.html")


def test_vectors_are_bars(tmp_path):
    """A table of five columns is drawn as five bars a row."""
    numbers = np.random.default_rng(0).normal(size=(60, 5))
    np.save(tmp_path / "table.npy", numbers)
    run = tmp_path / "run"
    assert diffrep("train", "--data", tmp_path / "table.npy", "--method", "vae-vdm", "--out", run, *SMALL) == 0
    text = report(run).read_text()
    panels = re.findall(r'<g transform="translate[^>]*><rect class="panel".*?</g>', text)
    assert len(panels) > 20 and all(panel.count('<rect class="fill c1"') == 5 for panel in panels)
    read(run / "report.html")


def test_the_verdict_promises_no_label_where_there_is_none(tmp_path):
    """A command that cannot predict a label of the data is not named as the one that does."""
    run = shutil.copytree(run_of("vae-vdm"), tmp_path / "run")
    (run / METRICS).unlink(missing_ok=True)
    assert "`diffrep evaluate" in verdict(run).knows
    card = unsealed(run / "data.json")
    (run / "data.json").write_text(json.dumps({**card, "label_names": None}))
    assert verdict(run).knows == "No label is predicted from the code: the data have none."


def test_names_from_data_stay_words(tmp_path):
    """A class whose name is a script is shown as its name: nothing from the data is ever markup."""
    evil = "<script>alert(1)</script>"
    x = np.random.default_rng(0).uniform(-1, 1, (40, 6, 6)).astype("float32")
    np.savez(tmp_path / "evil.npz", x=x, label=np.array([evil, "b & c"] * 20))
    run = tmp_path / "run"
    assert diffrep("train", "--data", tmp_path / "evil.npz", "--method", "drl", "--out", run, *SMALL) == 0
    page = report(run)
    assert evil not in page.read_text() and evil in read(page).words


def test_the_verdict_compares_with_what_needs_no_training(tmp_path):
    """More, less or no difference: by two standard errors of the difference, which is worked out by hand here."""
    run = shutil.copytree(run_of("vae-vdm"), tmp_path / "run")
    weights = weights_digest(load_tensors(run / "model.safetensors")[0])
    for pixels, word in ((0.80, "more than"), (0.95, "less than"), (0.91, "is not significant")):
        scores = {
            kind: {"linear": {"accuracy": a, "se": 0.01}}
            for kind, a in (("code", 0.9), ("pixels", pixels), ("pca", 0.1))
        }
        keep(run, PROBES, {"scores": scores, "classes": 10, "examples": {"test": 359}}, weights)
        assert word in verdict(run).knows  # 2 sqrt(0.01^2 + 0.01^2) = 0.028


def test_results_of_other_weights_are_not_shown(tmp_path):
    """A file of numbers that an older model left behind counts as not measured."""
    run = shutil.copytree(run_of("vae-vdm"), tmp_path / "run")
    keep(run, METRICS, {"bound": {"bits_per_dim": 0.1}}, "0" * 16)
    assert RunFiles.of(run).metrics == {} and "not measured" in verdict(run).costs


def test_the_commands_make_the_run_again(tmp_path):
    """The words of the page, given to the command line, name the very settings of the run."""
    out = tmp_path / "new run"
    words = ("--set", "code.dim=7", "--set", "train.lr=2e-4", "--seed", 3)
    assert diffrep("train", "--data", "digits", "--method", "drl", "--out", out, *SMALL, *words) == 0
    known = RunFiles.of(out)
    line = shlex.split(known.commands()[0])
    other = tmp_path / "again"
    line[line.index("--out") + 1] = str(other)
    assert line[0] == "diffrep" and diffrep(*line[1:]) == 0
    assert RunFiles.of(other).settings == known.settings != Settings()


def test_the_command_of_a_probe_names_its_protocols(tmp_path):
    """Few labels, further models, other labels and a time are named; what is fitted without them is not."""
    run = shutil.copytree(run_of("vae-vdm"), tmp_path / "run")
    weights = weights_digest(load_tensors(run / "model.safetensors")[0])
    for names, more, words in (
        (["linear", "knn"], {"labels": "label", "t": None}, ""),
        (["linear", "few-1", "few-10"], {}, " --few 1,10"),
        (["linear", "mlp", "few-5"], {}, " --protocols linear,mlp,few --few 5"),
        (["few-1", "spreading-1"], {}, " --protocols few,spreading --few 1"),
        (["knn"], {"labels": "hair colour", "t": 0.0}, " --labels 'hair colour' --t 0"),
    ):
        scores = {"code": {name: {"accuracy": 0.5, "se": 0.1} for name in names}}
        keep(run, PROBES, {"scores": scores, "classes": 10, "examples": {"test": 359}, **more}, weights)
        assert f"diffrep probe {run}{words}" in RunFiles.of(run).commands()


def test_a_report_of_no_run_is_a_mistake(tmp_path, capsys):
    """One sentence, and no file."""
    assert diffrep("report", tmp_path) == 2
    assert "is not a run" in one_sentence(capsys) and not list(tmp_path.iterdir())


def test_runs_are_listed_newest_first(tmp_path, capsys):
    """Every run at any depth has a row, and one that is broken says so in place of its numbers."""
    shutil.copytree(run_of("vae-vdm"), tmp_path / "deep" / "a")
    broken = shutil.copytree(run_of("drl"), tmp_path / "b")
    (broken / "data.json").write_text("{")
    assert diffrep("runs", tmp_path) == 0
    said = capsys.readouterr().out
    assert "deep/a" in said and "vae-vdm" in said and "broken" in said
    assert diffrep("runs", tmp_path / "none") == 2
