"""Runs side by side: their own numbers, best in bold where that can be said, and what does not compare is told."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from diffrep.errors import UserError
from diffrep.files import unsealed
from diffrep.runs.records import STAMP, WEIGHTS, weights_digest
from diffrep.studies.compare import Comparison, compare, table
from diffrep.studies.table import Number
from diffrep.training.checkpoints import load_tensors
from runs_at_hand import SMALL, diffrep, one_sentence, run_of


def copies(tmp_path: Path, bits: tuple[float, ...], error: float = 0.01, **more) -> list[Path]:
    """Runs with these numbers in their metrics.json."""
    places = []
    for i, value in enumerate(bits):
        place = tmp_path / f"run{i}"
        shutil.copytree(run_of("vae-vdm"), place, ignore=shutil.ignore_patterns("checkpoints"))
        bound = {"bits_per_dim": value, "bits_per_dim_se": error}
        metrics = {"bound": bound, "rate_nats": 9.0, "protocol": "bound-1", "levels": 8, "parameters": 5, **more}
        metrics[STAMP] = weights_digest(load_tensors(place / WEIGHTS)[0])
        (place / "metrics.json").write_text(json.dumps(metrics))
        places.append(place)
    return places


def bold(compared: Comparison) -> list[str]:
    shown = table(compared)
    return [row[0] for row in shown.rows if any(isinstance(cell, Number) and cell.bold for cell in row)]


@pytest.mark.parametrize("bits, best", [((1.0, 1.05, 1.3), ["run0"]), ((1.0, 1.03, 1.3), [])])
def test_bold_where_intervals_do_not_meet(bits, best, tmp_path):
    """With errors of 0.01, intervals reach 0.02 to each side: 0.05 apart they are separate, 0.03 apart they are not."""
    assert bold(compare(copies(tmp_path, bits))) == best


def test_other_protocols_are_marked_and_nothing_is_bold(tmp_path):
    """Numbers of two protocols stand in one table, but neither is better."""
    places = copies(tmp_path, (1.0, 2.0))
    metrics = unsealed(places[1] / "metrics.json")
    (places[1] / "metrics.json").write_text(json.dumps({**metrics, "protocol": "bound-0"}))
    compared = compare(places)
    assert "protocols" in compared.notes[0] and "run1 bound-0" in compared.notes[0] and bold(compared) == []


def test_other_test_examples_are_marked(tmp_path):
    """The same data cut by another seed: the fingerprint of the test split tells."""
    places = copies(tmp_path, (1.0, 2.0))
    card = unsealed(places[1] / "data.json")
    card["fingerprints"]["test"] = "0" * 16
    (places[1] / "data.json").write_text(json.dumps(card))
    compared = compare(places)
    assert "test examples" in compared.notes[0] and bold(compared) == []


def test_data_of_another_shape_and_single_runs_are_refused(tmp_path):
    """Bits per dimension of other data, or of nothing to compare with."""
    places = copies(tmp_path, (1.0, 2.0))
    card = unsealed(places[1] / "data.json")
    (places[1] / "data.json").write_text(json.dumps({**card, "shape": [3, 8, 8]}))
    with pytest.raises(UserError, match=r"3x8x8.*do not compare"):
        compare(places)
    with pytest.raises(UserError, match="two different runs"):
        compare([places[0], places[0]])
    with pytest.raises(UserError, match="is not a run"):
        compare([places[0], tmp_path])


def test_what_is_missing_is_a_dash(tmp_path, capsys):
    """Nothing is computed that was not asked for; the files hold the table whole."""
    places = copies(tmp_path, (1.5, 2.0))
    (places[1] / "metrics.json").unlink()
    capsys.readouterr()
    words = ("--csv", tmp_path / "t.csv", "--latex", tmp_path / "t.tex")
    assert diffrep("compare", *places, *words) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "run1" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["run1", "vae-vdm", "0"] and set(cells[3:]) == {"-"}
    assert not (places[1] / "metrics.json").exists()
    assert "1.5,0.01" in (tmp_path / "t.csv").read_text() and r"\toprule" in (tmp_path / "t.tex").read_text()


def test_measuring_fills_in_what_is_missing(tmp_path):
    """Asked for, what a run lacks is measured, what it has is kept, and the numbers are those of its files."""
    x, y = load_digits(return_X_y=True)
    np.savez(tmp_path / "few.npz", x=x[:60].reshape(-1, 8, 8).astype(np.uint8), y=y[:60])
    for method in ("ae", "vdm"):
        words = ("--data", tmp_path / "few.npz", "--method", method, "--out", tmp_path / method, *SMALL)
        assert diffrep("train", *words, "--set", "data.levels=17") == 0
    rows = compare([tmp_path / "ae", tmp_path / "vdm"], measured=True).runs
    metrics = json.loads((tmp_path / "vdm" / "metrics.json").read_text())
    assert rows[1].numbers.bits_per_dim == metrics["bound"]["bits_per_dim"] and rows[1].numbers.probe_linear is None
    assert rows[0].numbers.probe_few1 is not None and rows[0].numbers.bits_per_dim is None


@pytest.mark.long
def test_what_can_never_be_measured_is_not_tried_again(tmp_path, monkeypatch):
    """No labels, no noise levels, no branch without a code: the second time, nothing is left to measure of such runs;
    of one that can be profiled, a profile that is gone is made again."""
    np.save(tmp_path / "bare.npy", load_digits().images[:60].astype(np.uint8))
    kinds = {"ae": ("ae",), "blind": ("vae-vdm", "--set", "code.drop=0"), "coded": ("vae-vdm",)}
    for name, words in kinds.items():
        train = ("train", "--data", tmp_path / "bare.npy", "--out", tmp_path / name, *SMALL, "--method", *words)
        assert diffrep(*train) == 0
    places = [tmp_path / name for name in kinds]
    first = compare(places, measured=True)
    assert [row.numbers.information_nats is None for row in first.runs] == [True, True, False]
    measured = []
    monkeypatch.setattr(
        "diffrep.studies.compare.measure", lambda run, *more, **words: measured.append(run.directory.name)
    )
    assert compare(places, measured=True) == first and measured == []
    (tmp_path / "coded" / "profile.json").unlink()
    compare(places, measured=True)
    assert measured == ["coded"]


def test_the_command_says_one_sentence(tmp_path, capsys):
    """A folder that is no run."""
    capsys.readouterr()
    assert diffrep("compare", run_of("vae-vdm"), tmp_path) == 2
    assert "is not a run" in one_sentence(capsys)
