"""Files of results: which weights they are of, that others' are not read, and that none outlives its weights."""

import json
import shutil

import pytest
import torch

from diffrep import runs
from diffrep.errors import UserError
from diffrep.runs import records, summary
from diffrep.runs.records import DERIVED, METRICS, PROFILE, RESULTS, WEIGHTS, current, keep, read, weights_digest
from diffrep.training.checkpoints import load_tensors, save_tensors
from runs_at_hand import SMALL, diffrep, run_of


@pytest.fixture
def run(tmp_path):
    """A copy of a small run, without what other tests have measured of it."""
    shutil.copytree(run_of("vae-vdm"), tmp_path / "run", ignore=shutil.ignore_patterns(*DERIVED))
    return tmp_path / "run"


def test_the_stamp_is_of_the_weights_on_disk(run):
    """A loaded model and its file say the same, so that a reader needs no model; one weight changed says another."""
    loaded = runs.load(run)
    tensors, _ = load_tensors(run / WEIGHTS)
    assert loaded.keep(PROFILE, {"a": 1}) == {"a": 1, "weights": weights_digest(tensors)}
    assert read(run / PROFILE) == current(run)[PROFILE] == {"a": 1, "weights": weights_digest(tensors)}
    name = next(iter(tensors))
    assert weights_digest({**tensors, name: tensors[name] + 1}) != weights_digest(tensors)
    assert weights_digest({"a": torch.zeros(2), "b": torch.ones(2)}) != weights_digest(
        {"a": torch.ones(2), "b": torch.zeros(2)}
    )


def test_results_of_other_weights_are_not_read(run):
    """Trained on, a run has none of its old numbers, though their files are there; nor has a file without a stamp."""
    runs.load(run).keep(METRICS, {"bound": {"bits_per_dim": 1.5}, "parameters": 5})
    assert summary.numbers(run).bits_per_dim == 1.5
    tensors, facts = load_tensors(run / WEIGHTS)
    save_tensors(run / WEIGHTS, {name: value + 1 for name, value in tensors.items()}, facts)
    assert (run / METRICS).exists()
    assert summary.numbers(run).bits_per_dim is None and summary.numbers(run).parameters is None
    save_tensors(run / WEIGHTS, tensors, facts)
    assert summary.numbers(run).bits_per_dim == 1.5
    (run / METRICS).write_text(json.dumps({"bound": {"bits_per_dim": 1.5}}))
    assert summary.numbers(run).bits_per_dim is None
    (run / METRICS).write_text("{")
    with pytest.raises(UserError, match="measure the run again"):
        current(run)


def test_a_restart_leaves_nothing_of_the_old_weights(run, capsys):
    """Every file of results, their pictures, kept codes and samples go; what is not a run's stays."""
    new = {path.name for path in run.iterdir()}
    for name in DERIVED:
        place = run / name if "." in name else run / name / "old.npz"
        place.parent.mkdir(exist_ok=True)
        place.write_text("{}")
    (run / "notes.txt").write_text("keep")
    assert diffrep("train", "--out", run, "--restart", "--data", "digits", "--method", "vae-vdm", *SMALL) == 0
    assert {path.name for path in run.iterdir()} == new | {"notes.txt"}


def test_what_is_measured_has_a_name_that_a_restart_knows(run, capsys):
    """All that commands write beside weights is in DERIVED, and every file of results says of which weights it is."""
    before = {path.name for path in run.iterdir()}
    for words in (
        ("evaluate", run, "--levels", 1),
        ("probe", run, "--protocols", "knn"),
        ("profile", run, "--levels", 2),
        ("distance", run, "-n", 50, "--steps", 2),
    ):
        assert diffrep(*words) == 0, words
    made = {path.name for path in run.iterdir()} - before
    assert made <= set(DERIVED) and len(made) == 7  # four files, a picture, codes, samples
    stamp = weights_digest(load_tensors(run / WEIGHTS)[0])
    results = made & set(RESULTS)
    assert len(results) == 4 and all(read(run / name)["weights"] == stamp for name in results)


def test_a_result_without_a_known_name_is_refused(tmp_path):
    """It would stay when the run is begun anew."""
    with pytest.raises(AssertionError, match="outlive"):
        keep(tmp_path, "more.json", {}, "")
    records.remove(tmp_path)
