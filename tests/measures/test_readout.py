"""What the commands that read a run leave behind: files, tables, a picture, and a run as it was."""

import io
import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from diffrep.measures.readout import picture
from diffrep.measures.semi import _over
from runs_at_hand import diffrep, one_sentence, run_of

QUICK = {
    "readout": ("--levels", 2, "--search", 60, "--most", 100),
    "times": ("--times", "1,2", "--epochs", 2, "--most", 100),
    "semi": ("--labels-per-class", 2, "--seeds", 2, "--steps", 4, "--most", 60),
}
RUN_FOR = {"readout": "ddpm", "times": "tdrl", "semi": "drl"}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Each command run once on a copy of a small run: (the copy, what it printed as JSON)."""
    found = {}
    for command, method in RUN_FOR.items():
        copy = tmp_path_factory.mktemp(command) / "run"
        shutil.copytree(run_of(method), copy)
        found[command] = copy
    return found


@pytest.mark.parametrize("command", QUICK)
def test_the_file_is_what_is_printed_and_the_weights_stay(command, done, capsys):
    """JSON on stdout and on disk are one; a measurement leaves the run's weights bit-identical."""
    run = done[command]
    weights = (run / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert diffrep(command, run, *QUICK[command], "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    kept = json.loads((run / f"{command}.json").read_text())
    assert kept.pop("checksum") and kept == facts
    assert facts["method"] == RUN_FOR[command] and facts["protocol"]
    assert (run / "model.safetensors").read_bytes() == weights


def test_a_readout_shows_its_whole_search(done, capsys):
    """Each layer at each level stands in the table, and what was chosen is the best of them."""
    assert diffrep("readout", done["readout"], *QUICK["readout"]) == 0
    said = capsys.readouterr().out
    facts = json.loads((done["readout"] / "readout.json").read_text())
    layers = {cell["layer"] for cell in facts["grid"]}
    assert all(layer in said for layer in layers) and len(facts["grid"]) == 2 * len(layers)
    assert facts["valid_accuracy"] == max(cell["valid_accuracy"] for cell in facts["grid"])
    assert f"{facts['accuracy']:.4f}" in said and facts["probe"]["examples"] == 359


def test_times_stand_alone_and_together(done, capsys):
    """A row for each single time and each number of times; one time alone is the same whatever way it is combined; the
    best are the best on validation."""
    assert diffrep("times", done["times"], *QUICK["times"]) == 0
    facts = json.loads((done["times"] / "times.json").read_text())
    assert [row["t"] for row in facts["single"]] == [0.25, 0.75]
    ones = {(row["way"], row["reader"]): row["accuracy"] for row in facts["combined"] if row["k"] == 1}
    assert ones["mean", "mlp"] == ones["concat", "mlp"] and ones["mean", "linear"] == ones["concat", "linear"]
    assert facts["best_combined"]["valid_accuracy"] == max(row["valid_accuracy"] for row in facts["combined"])
    assert facts["best_single"]["valid_accuracy"] == max(row["mlp"]["valid_accuracy"] for row in facts["single"])
    said = capsys.readouterr().out
    assert "transformer" in said and "0.750" in said
    assert Image.open(done["times"] / "times.png").size[0] > 500


def test_semi_stands_side_by_side(done, capsys):
    """Four ways on the same draws of labels; those without a label are the rest of what may be used."""
    assert diffrep("semi", done["semi"], *QUICK["semi"]) == 0
    said = capsys.readouterr().out
    facts = json.loads((done["semi"] / "semi.json").read_text())
    for name in ("frozen", "random", "finetuned", "pseudo"):
        assert len(facts[name]["draws"]) == 2 and f"{facts[name]['accuracy']:.4f}" in said
    assert facts["examples"] == 359 and 40 <= facts["unlabelled_examples"] <= 60


def test_semi_draws_a_classifier_anew(tmp_path):
    """Its head has a row for each class of the data, which the untrained one beside must be told too."""
    shutil.copytree(run_of("classifier"), tmp_path / "run")
    assert diffrep("semi", tmp_path / "run", *QUICK["semi"]) == 0


@pytest.mark.parametrize(
    "words, said",
    [
        (("times", "drl"), "tdrl"),
        (("times", "tdrl", "--times", "1,x"), "1,2,5,10"),
        (("readout", "ae"), "removes no noise"),
        (("semi", "ddpm"), "no encoder"),
        (("semi", "drl", "--labels-per-class", 5000), "ask for fewer"),
    ],
)
def test_what_a_run_cannot_give_is_one_sentence(words, said, capsys):
    """Nothing is written beside such a run."""
    command, method, *rest = words
    run = run_of(method)
    capsys.readouterr()
    assert diffrep(command, run, *rest) == 2
    assert said in one_sentence(capsys)
    assert not (run / f"{command}.json").exists()


def test_the_error_is_of_new_labels_and_new_examples():
    """Independent causes add their variances: draws 0.8 and 0.9 say (0.05)^2 of their mean, 100 examples half of
    Wilson's interval, (p (1 - p) / n + 1 / 4 n^2) / (1 + 1 / n)^2; one draw tells nothing of the first."""

    def wilson(p: float) -> float:
        return (p * (1 - p) / 100 + 1 / 40_000) / 1.01**2

    assert _over([0.8, 0.9], 100)["se"] == pytest.approx(math.sqrt(0.05**2 + wilson(0.85)))
    assert _over([0.8], 100)["se"] == pytest.approx(math.sqrt(wilson(0.8)))


def test_the_picture_has_a_point_for_each_time():
    """Another accuracy moves the line, so pictures differ; the file opens."""

    def drawn(accuracy: float) -> np.ndarray:
        mlp = {"accuracy": accuracy, "se": 0.01}
        facts = {
            "single": [{"t": 0.25, "mlp": {"accuracy": 0.5, "se": 0.01}}, {"t": 0.75, "mlp": mlp}],
            "best_combined": {"k": 2, "way": "gru", "accuracy": 0.9},
        }
        return np.asarray(Image.open(io.BytesIO(picture(facts))).convert("L"))

    assert (drawn(0.6) != drawn(0.8)).any()
