"""Distances of a run's samples: what is held against what, and that a stopped call goes on."""

import json
import shutil

import numpy as np
import pytest
import torch

from diffrep import api, runs
from diffrep.data.stores import Grid
from diffrep.denoising.samplers import USUAL
from diffrep.errors import UserError
from diffrep.measures import distance
from diffrep.measures.distance import features_of, sampled
from diffrep.probes import quality
from diffrep.training.process import DEVICES
from runs_at_hand import diffrep, one_sentence, run_of


@pytest.fixture
def run(tmp_path):
    """A run of two steps on digits, to be written to."""
    return runs.load(shutil.copytree(run_of("vae"), tmp_path / "run"))


def test_samples_and_training_data_are_held_against_the_same_test_examples(run):
    """By hand from the pieces: as many training as test examples as samples, in the features that are named, and the
    file says what was returned."""
    facts = distance.distance(run, "pixels", n=150)
    kept = json.loads((run.directory / "distance.json").read_text())
    assert kept.pop("checksum") and kept == facts
    splits = run.splits()
    test, train = (part.batch(part.evenly(150)).x.flatten(1) for part in (splits.test, splits.train))
    fake = sampled(run, 150, USUAL, 0).flatten(1)
    for name, value in quality.compare(test, fake).items():
        assert facts[name] == pytest.approx(value)
    for name in ("frechet", "kid", "kid_se", "precision", "recall"):
        assert facts[f"{name}_floor"] == pytest.approx(quality.compare(test, train)[name])
    assert facts["frechet"] > 3 * facts["frechet_floor"]  # after two steps, samples are noise
    assert (facts["samples"], facts["against"]) == (150, 150)
    assert (facts["features"], facts["protocol"]) == ("pixels", "distance-1")


def test_the_smaller_split_says_how_many(run):
    """Digits have 359 test examples: more samples than that would be held against a set with another bias."""
    assert distance.distance(run, n=2000)["samples"] == 359


def test_samples_go_on_where_they_were_stopped(run, monkeypatch):
    """Chunks on disk are read and not drawn again, the rest is as in one go; other weights draw all anew; and a sample
    does not depend on how many there are."""
    whole = sampled(run, 230, USUAL, 0)
    assert whole.shape == (230, 1, 8, 8)
    assert torch.equal(sampled(run, 120, USUAL, 0), whole[:120])
    files = sorted(run.directory.glob(f"samples/{USUAL.sampler}-*-0/*.safetensors"))
    assert len(files) == 3
    files[1].write_bytes(files[1].read_bytes()[:-9])
    drawn = []
    sample = run.model.sample
    monkeypatch.setattr(run.model, "sample", lambda n, *rest, **how: drawn.append(n) or sample(n, *rest, **how))
    assert torch.equal(sampled(run, 230, USUAL, 0), whole) and drawn == [100]
    assert not torch.equal(sampled(run, 230, USUAL, 1), whole) and drawn == [100] * 4
    with torch.no_grad():
        next(run.model.parameters()).add_(0.1)
    sampled(run, 230, USUAL, 0)
    assert drawn == [100] * 7


@pytest.mark.parametrize("bins", [2, 17, 256, 65536])
def test_samples_lie_on_the_levels_of_the_data(bins):
    """A level stays that level, with any offset below half a level; the ends of [-1, 1] are the outer levels."""
    levels = torch.arange(bins).to(torch.uint8 if bins <= 256 else torch.int32)
    x = Grid(bins).x(levels)
    for offset in (0, 0.9 / bins, -0.9 / bins):
        assert torch.equal(distance._rounded(x + offset, bins), levels)
    assert distance._rounded(torch.tensor([-1.0, 1.0]), bins).tolist() == [0, bins - 1]


def test_samples_of_continuous_data_stay_as_they_are(tmp_path):
    """A table has no levels: what the model gives is what is compared, at any size of last chunk."""
    table = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    run = api.train(table, tmp_path / "run", "ae", "64ex", ["train.batch=32", "encoder.width=8", "decoder.width=8"])
    fake = sampled(run, 30, USUAL, 0)
    assert len(fake) == 30 and len(fake.unique()) == 150
    assert distance.distance(run, n=30)["samples"] == 30


def test_features_of_a_run_are_its_codes(run):
    """`run:PATH` names the run, not the folders around it, and gives what it, not the sampled run, encodes it as."""
    other = run_of("ae")
    seen, x = features_of(f"run:{other}", run), run.splits().test.batch(torch.arange(9)).x
    assert torch.equal(seen.of(x), runs.load(other).model.encode(x).mean)
    assert seen.name.startswith("run:run (codes of ae on digits, weights ")


@pytest.mark.parametrize("where", ["cpu", "cuda:0"])
def test_the_other_run_is_asked_for_by_a_device_that_exists_by_name(where, monkeypatch):
    """Weights lie on cuda:0, while a run is loaded to cpu, cuda or auto."""
    asked = []
    other = runs.load(run_of("vae"), "cpu")
    monkeypatch.setattr(runs.Run, "device", property(lambda self: torch.device(where)))
    monkeypatch.setattr(distance, "load", lambda path, device: asked.append(device) or other)
    distance.features_of("run:other", other)
    assert asked == ["cpu" if where == "cpu" else "auto"] and asked[0] in DEVICES


def test_features_that_do_not_fit_are_one_sentence(run, tmp_path, capsys):
    """Before a sample is drawn: another shape, no run, no code, an unknown name, an unknown sampler."""
    api.train(np.zeros((30, 4)) + np.eye(30, 4), tmp_path / "t", "ae", "64ex", ["train.batch=8", "encoder.width=8"])
    where = run.directory
    capsys.readouterr()
    for words, said in [
        (("--features", f"run:{tmp_path / 't'}"), "same shape"),
        (("--features", "run:nowhere"), "not a run"),
        (("--features", f"run:{run_of('ddpm')}"), "no code"),
        (("--features", "pixel"), "Did you mean 'pixels'"),
        (("--sampler", "dmp"), "Did you mean 'dpm'"),
    ]:
        assert diffrep("distance", where, *words) == 2
        assert said in one_sentence(capsys)
    assert not (where / "samples").exists() and not (where / "distance.json").exists()


def test_the_command_shows_numbers_with_what_they_were_made_with(run, capsys):
    """A table for people, the same numbers for machines."""
    capsys.readouterr()
    assert diffrep("distance", run.directory, "-n", 60) == 0
    said = capsys.readouterr().out
    assert "pixels" in said and "60 of each" in said and "training data" in said
    assert diffrep("distance", run.directory, "-n", 60, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert f"{facts['frechet']:.4g}" in said and f"{facts['frechet_floor']:.4g}" in said


def test_what_cannot_sample_says_so(tmp_path):
    """Without a prior there is nothing to draw from."""
    run = runs.load(shutil.copytree(run_of("drl"), tmp_path / "run"))
    run.model.prior = None
    run.model.drop = 0
    with pytest.raises(UserError, match="without a code"):
        distance.distance(run, n=20)
