"""Graph pseudo-labels: exact where clusters are apart, and training that gains by them."""

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from diffrep.evaluation.finetune import Classifier
from diffrep.evaluation.pseudo_labels import balanced, composite, pseudo_labels, train
from diffrep.probes.fitting import accuracy
from diffrep.probes.neighbours import neighbour_graph, spread_labels

pytestmark = pytest.mark.slow


def two_clusters(size: int = 40, apart: float = 10.0):
    """Features around two directions, and their classes."""
    rng = np.random.default_rng(0)
    y = np.arange(size) % 2
    return rng.normal(size=(size, 3)) + apart * np.eye(3)[y], y


def test_two_separated_clusters_are_exact_and_certain():
    """With one label in each, no path leads to the other class: every example is right, and as sure as any other."""
    x, y = two_clusters()
    labels = np.where(np.arange(40) < 2, y, -1)
    w = neighbour_graph(x, weighed=True)
    assert sparse.csgraph.connected_components(w)[0] == 2
    scores = spread_labels(w, np.eye(2)[labels] * (labels >= 0)[:, None])
    assert np.array_equal(scores.argmax(1), y) and np.all(scores[np.arange(40), 1 - y] == 0)
    guess, weight = pseudo_labels(x, labels, 2)
    assert np.array_equal(guess, y)
    np.testing.assert_allclose(weight, 1)


def test_weights_follow_what_is_known():
    """A known label is sure whatever its neighbours say; of the others, one right between two labels knows nothing, as
    one that no edge reaches, and the weights of all others make up for it: their mean is one."""
    angles = np.deg2rad([0.0, 20.0, 45.0, 70.0, 90.0, 225.0])
    x = np.stack([np.cos(angles), np.sin(angles)], 1)
    guess, weight = pseudo_labels(x, np.array([0, -1, -1, -1, 1, -1]), 2)
    assert (guess[0], guess[1], guess[3], guess[4]) == (0, 0, 1, 1)
    np.testing.assert_allclose(weight, [1, 2, 0, 2, 1, 0], atol=0.05)


def test_pseudo_labels_come_in_the_shares_of_the_known():
    """A class whose one label stands at a cluster's rim is drowned out there; the graph alone gives it fewer examples
    than balance does, and known labels as many of each class say that it has half."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(120, 2)) + 3 * np.eye(2)[np.arange(120) // 60]
    labels = np.full(120, -1)
    labels[[0, 119]] = 0, 1
    seeds = np.eye(2)[labels] * (labels >= 0)[:, None]
    share = spread_labels(neighbour_graph(x, weighed=True), seeds)[labels < 0].argmax(1).mean()
    guess, _ = pseudo_labels(x, labels, 2)
    assert abs(guess[labels < 0].mean() - 0.5) < abs(share - 0.5) - 0.05


def test_balance_brings_the_shares():
    """Nine in ten lean to class 0 where half should: the least sure change sides, and the order among them stays."""
    lean = np.linspace(0.45, 0.8, 100)
    p = balanced(np.stack([lean, 1 - lean], 1), np.array([0.5, 0.5]))
    np.testing.assert_allclose(p.sum(1), 1)
    assert (np.diff(p[:, 0]) > 0).all() and abs(p.argmax(1).mean() - 0.5) < 0.1
    assert abs((lean < 0.5).mean() - 0.5) > 0.3
    same = balanced(np.stack([lean, 1 - lean], 1), np.array([(lean > 0.5).mean(), (lean < 0.5).mean()]))
    np.testing.assert_allclose(same[:, 0], lean, atol=1e-6)


def test_the_loss_is_that_of_both_kinds_of_label():
    """Scores that say class 0 by log 3: a labelled 0 costs log 4/3 and a pseudo-labelled 1 of weight 1/2 half log 4."""
    classifier = nn.Linear(1, 2)
    with torch.no_grad():
        classifier.weight.zero_()
        classifier.bias.copy_(torch.tensor([3.0, 1.0]).log())
    few = (torch.zeros(1, 1), torch.tensor([0]))
    guessed = (torch.zeros(6, 1), torch.ones(6, dtype=torch.int64), torch.full((6,), 0.5))
    loss = composite(classifier, few, guessed, 0)()
    assert float(loss.detach()) == pytest.approx(np.log(4 / 3) + 0.5 * np.log(4), rel=1e-5)


def test_pseudo_labels_teach_what_few_labels_miss():
    """Two clusters of which the labels show one end each: the boundary between those ends is wrong for the other ends,
    while the graph follows each cluster to its end. The start is left as it was."""
    generator = torch.Generator().manual_seed(0)
    size = 400
    y = torch.arange(size) % 2
    along = torch.rand(size, generator=generator) * 1.2
    angle = torch.where(y == 0, along, along + 1.5)
    x = torch.stack([angle.cos(), angle.sin()], 1) + 0.02 * torch.randn(size, 2, generator=generator)
    head = nn.Linear(2, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[3.0, 0.0], [-3.0, 0.0]]))  # class 0 right of x = cos(0.8): wrong beyond 0.8
        head.bias.copy_(torch.tensor([-2.1, 2.1]))
    start = Classifier(nn.Identity(), torch.zeros(2), torch.ones(()), head)
    few = (torch.tensor([[1.0, 0.0], [np.cos(2.7), np.sin(2.7)]]).float(), torch.tensor([0, 1]))
    before = head.weight.clone()
    done = train(start, few, x[100:300], rate=0.0, rounds=2, steps=600)
    test = (x[300:], y[300:])
    assert accuracy(start, test) < 0.9 < 0.97 < accuracy(done, test)
    assert torch.equal(head.weight, before)
