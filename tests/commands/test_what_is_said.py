"""What the commands say of small mistakes: no more than what is known, and what to do."""

import csv
import json

import numpy as np
import pytest
import safetensors.torch
import torch

from diffrep.amounts import item
from diffrep.training.checkpoints import BrokenFile, load_tensors
from runs_at_hand import SMALL, diffrep, one_sentence

pytestmark = pytest.mark.slow


@pytest.fixture
def shop(tmp_path, monkeypatch, capsys):
    """A table of which two columns are words, one of them with commas in it, and a run on it."""
    monkeypatch.chdir(tmp_path)
    with open("shop.csv", "w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["price", "colour", "town", "label"])
        write.writerows([i / 7, ["red, dark", "blue"][i % 2], "ab"[i % 2], ["yes", "no"][i % 2]] for i in range(60))
    assert diffrep("train", "--data", "shop.csv", "--method", "vae", "--out", "run", "--budget", "64ex", *SMALL) == 0
    capsys.readouterr()
    return tmp_path


def test_words_with_commas_are_quoted(shop, capsys):
    """Two words are told from three."""
    assert diffrep("data", "shop.csv") == 0
    assert 'colour: blue, "red, dark"; town: a, b ' in capsys.readouterr().out
    assert [item(word) for word in ("a b", "", "a;b", ' "')] == ["a b", '""', '"a;b"', '" \\""']


def test_a_feature_is_no_label(shop, capsys):
    """A feature and an unknown name are told apart; a run with labels needs no option."""
    for name, said in (
        ("colour", "'colour' is one of the features that the model learned from, and no label: leave out --labels"),
        ("price", "'price' is one of the features that the model learned from, and no label: leave out --labels"),
        ("weight", "unknown labels 'weight'. Leave out --labels for the labels of the data."),
    ):
        assert diffrep("probe", "run", "--labels", name) == 2 and said in one_sentence(capsys)


def test_a_budget_that_was_spent_before_says_what_the_run_has_had(shop, capsys):
    """And does not report the former training as if it were this one."""
    assert diffrep("train", "--out", "run", "--budget", "32ex") == 0
    said = capsys.readouterr().out
    assert "run has had 64 examples in 2 steps" in said and "the budget is 32ex: give a larger --budget" in said
    assert "examples/s" not in said


def test_what_is_not_measured_has_its_command(shop, capsys):
    """In a comparison; and a run that is too short to be judged states no rate at its head."""
    assert diffrep("train", "--data", "shop.csv", "--method", "vae", "--out", "a b", "--budget", "64ex", *SMALL) == 0
    assert diffrep("evaluate", "run", "--levels", "1") == 0
    capsys.readouterr()
    assert diffrep("compare", "run", "a b") == 0
    said = capsys.readouterr().out
    assert "a b is not measured yet: `diffrep evaluate 'a b'` does so." in said and "evaluate run" not in said
    assert diffrep("compare", "run", "a b", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["notes"]) == 1
    assert diffrep("report", "run") == 0
    page = (shop / "run/report.html").read_text()
    assert "too early to tell" in page and "rate, nats" not in page and "the rate of the code is" not in page


def test_labels_of_one_class_are_named_when_training_begins(tmp_path, recwarn):
    """Once: not for two classes, not without labels, and not when the run goes on."""
    rng = np.random.default_rng(0)
    for name, labels in (("one", [3] * 60), ("two", [3, 4] * 30), ("none", None)):
        arrays = {"x": rng.normal(size=(60, 4))} | ({} if labels is None else {"y": np.array(labels)})
        np.savez(tmp_path / f"{name}.npz", **arrays)
        words = ("--data", tmp_path / f"{name}.npz", "--method", "ae", "--out", tmp_path / name, *SMALL)
        for budget in ("32ex", "64ex"):
            recwarn.clear()
            assert diffrep("train", *words, "--budget", budget) == 0
            said = [str(w.message) for w in recwarn if "every label" in str(w.message)]
            assert len(said) == (name == "one" and budget == "32ex")
            assert all("every label of the training split is '3'" in sentence for sentence in said)


def test_axes_that_are_no_picture_name_their_setting(tmp_path, capsys):
    """Five channels cannot be a PNG each: the axes may have been taken for others."""
    np.save(tmp_path / "five.npy", np.random.default_rng(0).integers(0, 256, (60, 5, 8, 8), dtype=np.uint8))
    assert diffrep("train", "--data", tmp_path / "five.npy", "--method", "vae", "--out", tmp_path / "r", *SMALL) == 0
    capsys.readouterr()
    assert diffrep("sample", tmp_path / "r", "-o", tmp_path / "png") == 2
    assert "name a .npy or .npz file with -o, or train a run with another data.layout" in one_sentence(capsys)


def test_a_file_of_another_library_is_one_sentence(tmp_path):
    """Not one sentence inside of another."""
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(
        BrokenFile, match=r"^[^(]*holds tensors of another library: its header does not name diffrep\.$"
    ):
        load_tensors(tmp_path / "a.safetensors")
