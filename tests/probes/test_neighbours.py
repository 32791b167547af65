"""Nearest neighbours against scikit-learn's classifier; spreading against the inverse that it stands for."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.neighbors import KNeighborsClassifier
from sklearn.semi_supervised import LabelSpreading

from diffrep.errors import UserError
from diffrep.probes import neighbours
from diffrep.probes.few_labels import few_labels
from diffrep.probes.neighbours import NUMBERS, knn, nearest, neighbour_graph, spread_labels, spreading, vote


def split(size: int, seed: int, dtype=np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Four classes that overlap, at different lengths."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, size)
    angle = y * np.pi / 2 + 0.7 * rng.normal(size=size)
    x = np.stack([np.cos(angle), np.sin(angle), 0.3 * rng.normal(size=size)], 1) * rng.uniform(0.5, 2, (size, 1))
    return (x + np.array([0, 0, 1])).astype(dtype), y


PARTS = split(400, 0), split(203, 1), split(307, 2)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 4, 10])
def test_votes_are_scikit_learns(metric, k):
    """Label by label, among an even number of neighbours too, where votes are often equal: the smallest label wins."""
    (x, y), _, (asked, _) = PARTS
    known = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(x, y)
    assert np.array_equal(vote(y[nearest(x, asked, k, metric)]), known.predict(asked))


def test_equal_votes_go_to_the_smallest_label():
    """Two against two, and one of each."""
    assert vote(np.array([[7, 3, 3, 7], [9, 7, 5, 3], [5, 5, 3, 9]])).tolist() == [3, 3, 5]


def test_knn_is_scikit_learn_step_by_step():
    """Every k and metric scored on validation, the first of the best kept, the test split scored with it."""
    (x, y), (x_valid, y_valid), (x_test, y_test) = PARTS
    fits = {
        (metric, k): KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(x, y)
        for metric in ("euclidean", "cosine")
        for k in NUMBERS
    }
    scores = {name: fit.score(x_valid, y_valid) for name, fit in fits.items()}
    best = max(scores, key=scores.get)  # the first of equals
    said = knn(*PARTS)
    assert (said["metric"], said["k"]) == best and said["accuracy"] == fits[best].score(x_test, y_test)
    assert said["metric"] == "cosine"  # lengths mean nothing here


@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_chunks_change_nothing(chunk):
    """The last chunk is as small as it comes: every example is counted, once."""
    assert knn(*PARTS, chunk=chunk) == knn(*PARTS) and knn(*PARTS, chunk=chunk)["examples"] == 307


def test_memory_is_that_of_a_chunk(monkeypatch):
    """The search never sees more than so many questions at a time."""
    from sklearn.neighbors import NearestNeighbors

    asked, real = [], NearestNeighbors.kneighbors
    monkeypatch.setattr(
        NearestNeighbors, "kneighbors", lambda self, x, **how: asked.append(len(x)) or real(self, x, **how)
    )
    nearest(PARTS[0][0], PARTS[2][0], 3, chunk=100)
    assert asked == [100, 100, 100, 7]


def test_spreading_is_its_closed_form():
    """F = (I - alpha S)^-1 Y (Zhou et al. 2004), with S from pairs of neighbours found one by one."""
    x = split(60, 3)[0]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T - 2 * np.eye(60)
    w = np.zeros((60, 60))
    for i in range(60):
        for j in np.argsort(-cosine[i])[:10]:
            w[i, j] = w[j, i] = 1
    s = w / np.sqrt(np.outer(w.sum(0), w.sum(0)))
    np.testing.assert_allclose(neighbour_graph(x).toarray(), w, atol=1e-12)
    y = np.eye(60)[:, [3, 17, 40]]
    np.testing.assert_allclose(
        spread_labels(neighbour_graph(x), y), np.linalg.solve(np.eye(60) - 0.99 * s, y), rtol=1e-3
    )


def test_the_graph_is_that_of_cosines_by_hand():
    """Every pair computed: an edge where one is among the nearest of the other, of weight cosine, or 0 below it."""
    x = np.random.default_rng(0).normal(size=(12, 3))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    near = np.zeros((12, 12), bool)
    np.put_along_axis(near, np.argsort(-cosine, 1)[:, :4], True, 1)
    expected = np.where(near | near.T, np.maximum(cosine, 0), 0)
    np.testing.assert_allclose(neighbour_graph(x, 4, weighed=True).toarray(), expected, atol=1e-12)


def test_what_touches_nothing_keeps_what_it_has():
    """(I - alpha S) F = Y by Gaussian elimination, on a graph with a node that touches nothing."""
    rng = np.random.default_rng(0)
    w = rng.uniform(size=(9, 9)) * (rng.uniform(size=(9, 9)) < 0.5)
    w = np.triu(w, 1) + np.triu(w, 1).T
    w[8] = w[:, 8] = 0
    degree = w.sum(1)
    degree[8] = 1
    s = w / np.sqrt(np.outer(degree, degree))
    y = np.eye(9)[:, [0, 1, 8]]
    expected = np.linalg.solve(np.eye(9) - 0.99 * s, y)
    np.testing.assert_allclose(spread_labels(sparse.csr_array(w), y), expected, atol=1e-4)
    assert np.allclose(expected[8], [0, 0, 1])


def test_spreading_agrees_with_scikit_learn():
    """The same graph through LabelSpreading, which walks to the same fixed point: the same labels."""
    (x, y), _, (x_test, _) = PARTS
    every = np.concatenate([x, x_test])
    graph = neighbour_graph(every)
    weights = graph.tocoo()
    rows = np.array([np.flatnonzero(y == c)[0] for c in range(4)])
    labels = np.full(len(every), -1)
    labels[rows] = y[rows]
    walked = LabelSpreading(kernel=lambda a, b: weights, alpha=0.99, max_iter=10_000, tol=1e-9).fit(every, labels)
    seeds = np.zeros((len(every), 4))
    seeds[rows, y[rows]] = 1
    assert (spread_labels(graph, seeds).argmax(1) == walked.transduction_).mean() > 0.995


def test_unlabelled_examples_take_part():
    """Two half moons of points: one label of each is enough along the graph, and too little for a plane."""
    rng = np.random.default_rng(0)

    def moons(size):
        y = rng.integers(0, 2, size)
        angle = np.pi * rng.random(size)
        x = np.stack([np.cos(angle) + y, np.sin(angle) * (1 - 2 * y) + y / 2], 1) + 0.05 * rng.normal(size=(size, 2))
        lifted = np.concatenate([np.cos(3 * x), np.sin(3 * x)], 1)  # so that nearness is an angle
        return lifted, y

    train, test = moons(600), moons(201)
    said = spreading(train, test, 1, repeats=5)
    assert said["accuracy"] > 0.95 > few_labels(train, test, 1, repeats=5)["accuracy"] + 0.05
    assert said["examples"] == 201 and said["train_examples"] == 2


def test_test_labels_are_not_seen(monkeypatch):
    """The seeds are those of train whatever the labels of the test split; its unlabelled examples are not scored."""
    seeds, real = [], neighbours.spread_labels
    monkeypatch.setattr(neighbours, "spread_labels", lambda graph, y: seeds.append(y.copy()) or real(graph, y))
    (x, y), _, (x_test, y_test) = PARTS
    said = spreading((x, y), (x_test, y_test), 2, repeats=2)
    other = spreading((x, y), (x_test, np.where(np.arange(307) < 100, -1, (y_test + 1) % 4)), 2, repeats=2)
    assert all(np.array_equal(a, b) for a, b in zip(seeds[:2], seeds[2:], strict=True))
    assert all(not y[400:].any() and y.sum() == 8 for y in seeds)
    assert other["examples"] == 207 and other["accuracy"] < 1 - said["accuracy"]


def test_what_no_label_reaches_is_wrong():
    """Two clusters with no edge between them, labels in one: the other's test examples are no hits by chance."""
    rng = np.random.default_rng(0)
    near, far = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
    x = np.concatenate([near + 0.1 * rng.random((40, 3)), far + 0.1 * rng.random((40, 3))])
    y = np.concatenate([np.arange(40) % 2, np.full(40, -1)])
    said = spreading((x, y), (far + 0.1 * rng.random((11, 3)), np.zeros(11, int)), 1, repeats=2)
    assert said["accuracy"] == 0
    with pytest.raises(UserError, match="larger share"):
        spreading((x, y), (x, np.full(80, -1)), 1)
