"""Studies carried out: results are those of their runs, nothing is repeated, a stop goes on, mistakes cost nothing."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from diffrep import runs
from diffrep.data import Splits
from diffrep.errors import UserError
from diffrep.files import unsealed
from diffrep.measures.probe import Probing, probe
from diffrep.methods.parts import Facts
from diffrep.runs.records import PROBES, read
from diffrep.studies import study as engine
from diffrep.studies.plan import expand, plan
from diffrep.studies.study import study
from runs_at_hand import diffrep, one_sentence
from small import THIN

pytestmark = pytest.mark.slow

SET = [*THIN, "data.levels=3", "noise.kind=linear"]
MEASURED = ["bound", "probes", "information", "factors", "appearance"]
RUNS = [{"name": "A code", "method": "vae-vdm", "twin": True}]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """120 digits of three grey levels with their labels, and a factor, in a file."""
    x, y = load_digits(return_X_y=True)
    path = tmp_path_factory.mktemp("data") / "few.npz"
    images = (x[:120].reshape(-1, 8, 8) // 6).astype(np.uint8)
    np.savez(path, x=images, y=y[:120], ink=images.astype(np.float64).sum((1, 2)))
    return path


def written(data: Path, **changes):
    about = {"name": "small", "data": str(data), "budget": "64ex", "seeds": [0, 1], "levels": 1}
    return plan({**about, "set": SET, "measure": ["bound"], "runs": RUNS, **changes})


@pytest.fixture(scope="module")
def done(data, tmp_path_factory) -> tuple[Path, dict]:
    """A study of a code and its twin, two seeds, all measures."""
    out = tmp_path_factory.mktemp("study")
    return out, study(written(data, measure=MEASURED), out)


def test_rows_hold_what_the_runs_say(done):
    """study.json repeats the files of the runs, and the table their means, taken by hand here."""
    out, found = done
    assert found == unsealed(out / "study.json")
    rows = {row["run"]: row for row in found["runs"]}
    assert list(rows) == ["a-code-seed0", "a-code-twin-seed0", "a-code-seed1", "a-code-twin-seed1"]
    for name, row in rows.items():
        metrics = json.loads((out / "runs" / name / "metrics.json").read_text())
        assert row["bits_per_dim"] == metrics["bound"]["bits_per_dim"] and row["rate_nats"] == metrics["rate_nats"]
        assert row["parameters"] == metrics["parameters"] and row["examples"] == 64 and row["seconds"] > 0
        assert row["code"] == (row["probe_linear"] is not None) == ("twin" not in name)
    profile = json.loads((out / "runs" / "a-code-seed1" / "profile.json").read_text())
    assert rows["a-code-seed1"]["information_nats"] == profile["integral_nats"]
    assert list(rows["a-code-seed0"]["factors"]) == ["ink", "area", "intensity", "aspect"]
    code, other = ([rows[f"a-code{t}-seed{s}"]["bits_per_dim"] for s in (0, 1)] for t in ("", "-twin"))
    gaps = np.subtract(code, other)
    said = (out / "table.md").read_text()
    assert f"{np.mean(code):.4f} ± {np.std(code, ddof=1) / math.sqrt(2):.4f}" in said
    assert f"{gaps.mean():+.4f} ± {gaps.std(ddof=1) / math.sqrt(2):.4f}" in said


def test_the_probes_of_a_study_are_those_of_the_command(done, tmp_path):
    """`diffrep probe` goes on from them: what is there is kept, with the rest and the references beside it."""
    shutil.copytree(done[0] / "runs" / "a-code-seed0", tmp_path / "run")
    before = read(tmp_path / "run" / PROBES)["scores"]
    assert list(before) == ["code"] and list(before["code"]) == ["few-1"]
    assert "10 for each" in {row["run"]: row for row in done[1]["runs"]}["a-code-seed0"]["missing"]["probes"]
    found = probe(runs.load(tmp_path / "run"), asked=Probing(names=["knn"]))["scores"]
    assert found["code"]["few-1"] == before["code"]["few-1"] and "knn" in found["code"]
    assert found["pixels"].keys() == {"knn"}


@pytest.mark.long
def test_refined_codes_stand_beside_the_encoders(data, tmp_path):
    """Asked for, they are measured of a Gaussian code, said to be missing for another, and nothing for a twin."""
    runs_ = [*RUNS, {"name": "point", "method": "vae-vdm", "set": ["code.kind=categorical", "code.classes=2"]}]
    found = study(written(data, runs=runs_, seeds=[0], refine=2), tmp_path)
    rows = {row["run"]: row for row in found["runs"]}
    metrics = json.loads((tmp_path / "runs" / "a-code-seed0" / "metrics.json").read_text())
    code, refined = rows["a-code-seed0"], metrics["refined"]
    assert (refined["steps"], refined["examples"]) == (2, metrics["examples"])
    assert code["refined_bits_per_dim"] == refined["bits_per_dim"] and code["refined_rate_nats"] == refined["rate_nats"]
    gap = refined["gap_nats"] / 64 / math.log(2)
    assert metrics["bound"]["bits_per_dim"] - refined["bits_per_dim"] == pytest.approx(gap, abs=1e-6)
    assert "Gaussian" in rows["point-seed0"]["missing"]["refined codes"]
    assert rows["point-seed0"]["bits_per_dim"] > 0 and rows["a-code-twin-seed0"]["missing"] == {}
    assert "bits/dim, refined codes" in (tmp_path / "table.md").read_text()


def test_twins_have_the_parameters_and_the_data_of_their_runs(done):
    """Within 2 %, on the same cut of the data; what was trained is counted, not what was planned."""
    rows = {row["run"]: row for row in done[1]["runs"]}
    pairs = [(row, rows[row["twin"]]) for row in rows.values() if row["twin"]]
    assert pairs
    for row, other in pairs:
        assert other["parameters"] == pytest.approx(row["parameters"], rel=0.02)
        assert (other["seed"], other["fingerprint"]) == (row["seed"], row["fingerprint"])


def test_files_are_whole_and_name_no_place(done, data):
    """Tables and figures stand beside; nothing in them depends on where the data or the study lies."""
    out, _ = done
    for name in ("frontier.png", "probes.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    for name in ("study.json", "table.md", "table.csv", "table.tex"):
        text = (out / name).read_text()
        assert str(data.parent) not in text and str(out) not in text and text


def test_nothing_is_repeated(done, data, monkeypatch):
    """A result that is there is kept; another measure is a new question, and one that is not asked for is not run."""
    out, found = done
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    all_ = written(data, measure=MEASURED)
    assert study(all_, out)["runs"] == found["runs"]


def test_a_stop_loses_the_run_at_hand_alone(data, tmp_path, monkeypatch):
    """Stopped in the second of three runs: one result is on disk, and the same call makes the other two."""
    calls: list[str] = []
    train = runs.train

    def counted(settings, directory, splits: Splits):
        calls.append(Path(directory).name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(settings, directory, splits=splits)

    monkeypatch.setattr(engine.runs, "train", counted)
    three = written(data, seeds=[0, 1, 2], runs=[{"name": "a", "method": "ae"}])
    with pytest.raises(KeyboardInterrupt):
        study(three, tmp_path)
    first = json.loads((tmp_path / "study.json").read_text())["runs"]
    assert len(first) == 1
    found = study(three, tmp_path)["runs"]
    assert found[:1] == first and calls == ["a-seed0", "a-seed1", "a-seed1", "a-seed2"]


def test_other_settings_in_the_same_folder_are_refused(done, data, tmp_path):
    """A run of another budget or another rate is not the one that was asked for; it is not removed either."""
    shutil.copytree(done[0], tmp_path / "s")
    for changes in ({"budget": "96ex"}, {"set": [*THIN, "data.levels=3", "code.rate=3.0"]}):
        with pytest.raises(UserError, match="and the study now asks for"):
            study(written(data, **changes), tmp_path / "s")


def test_a_run_that_fails_is_a_row_and_the_rest_goes_on(data, tmp_path, monkeypatch):
    """The reason stands in its row, without the place; the next call tries it again, and it alone."""
    train, calls = runs.train, []

    def broken(settings, directory, splits: Splits):
        calls.append(settings.method)
        if settings.method == "dae" and len(calls) == 1:
            raise UserError(f"{directory} burst.")
        return train(settings, directory, splits=splits)

    monkeypatch.setattr(engine.runs, "train", broken)
    two = written(data, seeds=[0], runs=[{"name": m, "method": m} for m in ("dae", "ae")])
    assert [row["error"] for row in study(two, tmp_path)["runs"]] == ["dae-seed0 burst.", None]
    assert [row["error"] for row in study(two, tmp_path)["runs"]] == [None, None]
    assert calls == ["dae", "ae", "dae"]


def test_only_chooses_a_run_with_its_twins(data):
    """By name or by folder."""
    planned = expand(written(data, runs=[*RUNS, {"name": "other", "method": "ae"}]), Facts((1, 8, 8), 17))
    assert [run.folder for run in engine.chosen(planned, "A code")] == [
        f"a-code{t}-seed{s}" for s in (0, 1) for t in ("", "-twin")
    ]
    assert [run.folder for run in engine.chosen(planned, "a-code-seed1")] == ["a-code-seed1", "a-code-twin-seed1"]
    with pytest.raises(UserError, match="Did you mean 'other'"):
        engine.chosen(planned, "othr")


def test_the_command(data, tmp_path, capsys):
    """What it prints is what is on disk; a mistake is one sentence, and nothing is written."""
    (tmp_path / "s.toml").write_text(
        'name = "s"\nbudget = "32ex"\nlevels = 1\nmeasure = ["bound"]\nseeds = [0]\ndata = "nowhere"\n'
        f'set = {[*THIN]}\n[[runs]]\nname = "a"\nmethod = "ae"\n'
    )
    assert diffrep("study", tmp_path / "s.toml", "-o", tmp_path / "out") == 2
    assert "nowhere" in one_sentence(capsys) and not (tmp_path / "out").exists()
    assert diffrep("study", tmp_path / "s.toml", "-o", tmp_path / "out", "--data", data, "--json") == 0
    assert json.loads(capsys.readouterr().out) == unsealed(tmp_path / "out/study.json")


def test_a_mistake_of_ours_is_no_row(data, tmp_path, monkeypatch):
    """Out of memory is a property of a run; another RuntimeError is a fault of the program, which must be seen."""
    alone = written(data, seeds=[0], runs=[{"name": "ae", "method": "ae"}])
    for said, raised in (("out of memory", False), ("sizes do not match", True)):

        def broken(settings, directory, splits: Splits, said=said):
            raise RuntimeError(said)

        monkeypatch.setattr(engine.runs, "train", broken)
        if raised:
            with pytest.raises(RuntimeError, match=said):
                study(alone, tmp_path / "s")
        else:
            assert study(alone, tmp_path / "s")["runs"][0]["error"] == said


def test_the_commit_is_that_of_the_whole_package(tmp_path, monkeypatch):
    """A change outside of studies/ makes another commit; what is not committed is said; no checkout has none."""

    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    (tmp_path / "studies").mkdir()
    for name in ("studies/study.py", "nets.py"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(engine, "__file__", str(tmp_path / "studies" / "study.py"))
    assert engine.commit() is None
    git("init")
    git("add", ".")
    git("commit", "-m", "a")
    first = engine.commit()
    (tmp_path / "nets.py").write_text("2")
    assert engine.commit() == f"{first}-dirty"
    git("commit", "-am", "b")
    assert engine.commit() not in (first, f"{first}-dirty", None) and "dirty" not in engine.commit()
