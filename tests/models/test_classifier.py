"""The supervised ceiling against torch's cross entropy, and the floor that learns nothing."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffrep import config, runs
from diffrep.codes.posteriors import Deterministic
from diffrep.errors import UserError
from diffrep.methods.catalog import build
from diffrep.models.classifier import Classifier
from diffrep.nets.encoders import MLPEncoder
from diffrep.shapes import Batch
from runs_at_hand import SMALL, diffrep, one_sentence, run_of


def made() -> Classifier:
    torch.manual_seed(0)
    return Classifier((5,), None, Deterministic(MLPEncoder((5,), 16, 1), 4), classes=3)


def test_the_loss_is_cross_entropy_and_unlabelled_examples_count_nothing():
    """In value and in gradient: torch's own sum over the labelled alone."""
    model, x = made(), torch.randn(6, 5)
    label = torch.tensor([0, -1, 2, 1, -1, 2])
    nats = model.loss(Batch(x, torch.arange(6), label=label))["label"]
    known = label >= 0
    scores = model.scores(model.posterior(x[known]).mean)
    assert (nats[~known] == 0).all()
    torch.testing.assert_close(nats.sum(), F.cross_entropy(scores, label[known], reduction="sum"))
    torch.testing.assert_close(nats[known], -model.log_probs(x[known]).gather(1, label[known, None])[:, 0])
    torch.testing.assert_close(model.log_probs(x).exp().sum(1), torch.ones(6))
    silent = torch.autograd.grad(nats[~known].sum(), [*model.parameters()])
    assert all(float(gradient.abs().sum()) == 0 for gradient in silent)


def test_a_classifier_needs_labels(tmp_path, capsys):
    """Data without any, or with one class, is one sentence, before anything is written."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 5)))
    words = ("--data", tmp_path / "x.npy", "--method", "classifier", "--out", tmp_path / "run", *SMALL)
    assert diffrep("train", *words) == 2
    assert "at least two classes" in one_sentence(capsys)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="labels"):
        made().loss(Batch(torch.randn(2, 5), torch.arange(2)))


def test_a_trained_classifier_comes_back_with_its_classes():
    """The number of classes is that of the data, kept with the run."""
    model = runs.load(run_of("classifier")).model
    assert model.log_probs(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_method_that_learns_nothing_returns_at_once(tmp_path):
    """Whatever the budget: no step, the weights as they were drawn from the seed, and again on the same command."""
    settings = config.override(config.Settings(), ["method=random-encoder", "train.budget=10m", "encoder.width=8"])
    for _ in range(2):
        run = runs.train(settings, tmp_path / "run")
        assert (run.result.step, run.result.examples, run.result.interrupted) == (0, 0, False)
    drawn = build(settings, run.card.facts()).state_dict()
    assert all(torch.equal(value, drawn[name]) for name, value in run.model.state_dict().items())
    assert diffrep("evaluate", tmp_path / "run", "--levels", 1) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["bound"] is None and metrics["probes"]["linear"] > 0.5
