"""The probe with a hidden layer: what it can learn, that it repeats, and which epoch it keeps."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffrep.probes.linear import linear
from diffrep.probes.mlp import mlp

pytestmark = pytest.mark.slow


def rings(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, one around the other: no plane parts them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, size)
    angle, radius = rng.uniform(0, 2 * np.pi, size), 1 + 2 * y + 0.2 * rng.normal(size=size)
    return np.stack([radius * np.cos(angle), 50 * radius * np.sin(angle)], 1), y * 3 + 2  # labels 2 and 5


@pytest.fixture(scope="module")
def splits():
    return rings(300, 0), rings(200, 1), rings(301, 2)


def test_what_no_plane_can_part(splits):
    """A hidden layer parts two rings, which a linear probe cannot; labels need not be 0, 1, ..."""
    said = mlp(*splits, epochs=40)
    assert said["accuracy"] > 0.97 and said["examples"] == 301
    assert linear(*splits)["accuracy"] < 0.7


def test_it_repeats_and_leaves_the_global_generator_alone(splits):
    """The seed decides all; whoever called it draws the same numbers after as before."""
    torch.manual_seed(5)
    first = mlp(*splits, epochs=2)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert mlp(*splits, epochs=2) == first
    rng = np.random.default_rng(0)
    vague = [(rng.normal(size=(200, 3)), rng.integers(0, 5, 200)) for _ in range(3)]
    assert len({mlp(*vague, epochs=3, seed=seed)["accuracy"] for seed in range(4)}) > 1


def test_the_kept_epoch_is_the_first_best_on_validation(splits):
    """Stopping there gives the same network: so many epochs, and no more, score the same on test."""
    noisy = [(x, np.where(np.random.default_rng(0).random(len(y)) < 0.2, 7 - y, y)) for x, y in splits]
    said = mlp(*noisy, epochs=12)
    assert said == mlp(*noisy, epochs=said["epoch"])
    assert 1 < said["epoch"] < 12
    assert mlp(*noisy, epochs=200, patience=1)["epoch"] < 200


def test_a_quarter_of_512_units_is_dropped_in_training_alone(splits, monkeypatch):
    """The network of the paper: what its dropout is given, step by step; no validation or test example meets it."""
    met, real = set(), F.dropout

    def spy(x, p, training, inplace):
        met.add((x.shape[1], p, training))
        return real(x, p, training, inplace)

    monkeypatch.setattr(F, "dropout", spy)
    mlp(*splits, epochs=1)
    assert met == {(512, 0.25, True), (512, 0.25, False)}


def test_every_training_example_is_met_in_every_epoch(splits, monkeypatch):
    """Once each, the last partial batch (300 = 256 + 44) with the others, in another order each time."""
    met, real = [], F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda scores, y: met.append(y) or real(scores, y))
    mlp(*splits, epochs=2)
    assert [len(y) for y in met] == [256, 44, 256, 44]
    for epoch in (met[:2], met[2:]):
        assert torch.cat(epoch).bincount().tolist() == np.bincount(splits[0][1])[[2, 5]].tolist()
    assert not torch.equal(met[0], met[2])
