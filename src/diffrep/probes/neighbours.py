"""Nearest neighbours: their vote, and label spreading over their graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffrep.errors import UserError
from diffrep.probes.few_labels import drawn, over_draws
from diffrep.probes.linear import labelled
from diffrep.probes.result import Result, Split, accuracy, auroc, balanced, quiet
from diffrep.progress import Part, part_of, unsaid

KNN = "knn-1"  # features as they are; k and metric chosen on validation; each neighbour one vote; full test split
SPREADING = "spreading-1"  # train and test in one graph of 10 neighbours by cosine; alpha = 0.99; no choices
METRICS = ("euclidean", "cosine")
NUMBERS = (1, 5, 10, 20, 50, 100)  # of neighbours
DEGREE, ALPHA = 10, 0.99


@quiet
def knn(
    train: Split, valid: Split, test: Split, most: int = 1_000_000, chunk: int = 1000, tell: Part = unsaid
) -> Result:
    """The most frequent label among the k nearest training examples; of equally frequent ones the smallest.

    k and the metric are chosen on validation, of equally good ones the first of `METRICS`, then the smallest k. `chunk`
    examples are compared at a time, to limit memory. Otherwise as `linear`.
    """
    train, valid, test = labelled(train, valid, test, most)
    numbers = [k for k in NUMBERS if k <= len(train[1])]
    count = part_of(len(METRICS) * len(valid[1]) + len(test[1]), tell)
    highest, metric, k = -1.0, METRICS[0], numbers[0]
    for name in METRICS:
        near = train[1][nearest(train[0], valid[0], numbers[-1], name, chunk, count)]
        for number in numbers:
            score = float((vote(near[:, :number]) == valid[1]).mean())
            if score > highest:
                highest, metric, k = score, name, number
    near = train[1][nearest(train[0], test[0], k, metric, chunk, count)]
    classes, votes = counted(near)
    return accuracy(classes[votes.argmax(1)], test[1], len(train[1]), KNN, {"k": k, "metric": metric}, votes, classes)


def nearest(
    members: np.ndarray,
    queries: np.ndarray,
    k: int,
    metric: str = "euclidean",
    chunk: int = 1000,
    count: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """(n, k) positions in `members` (N, d) of the nearest to each of `queries` (n, d), nearest first.

    count: called with the number of queries of each chunk that is done.
    """
    from sklearn.neighbors import NearestNeighbors

    if metric == "cosine":  # |a - b|^2 = 2 - 2 cos(a, b) at length one: the same order
        members, queries = _at_length_one(members), _at_length_one(queries)
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(members)
    found = []
    for start in range(0, len(queries), chunk):
        some = queries[start : start + chunk]
        found.append(search.kneighbors(some, return_distance=False))
        count(len(some))
    return np.concatenate(found)


def vote(near: np.ndarray) -> np.ndarray:
    """(n,) the most frequent label of each row of `near` (n, k); of equally frequent ones the smallest."""
    classes, votes = counted(near)
    return classes[votes.argmax(1)]


def counted(near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes (K,) that occur in `near` (n, k), rising, and how often each does in each row, (n, K)."""
    classes, places = np.unique(near, return_inverse=True)
    rows = np.arange(len(near))[:, None] * len(classes)
    counts = np.bincount((rows + places.reshape(near.shape)).ravel(), minlength=len(near) * len(classes))
    return classes, counts.reshape(len(near), -1)


@quiet
def spreading(
    train: Split,
    test: Split,
    per_class: int,
    repeats: int = 20,
    seed: int = 0,
    names: Sequence[str] | None = None,
    tell: Part = unsaid,
) -> Result:
    """A few labels of each class, spread over the graph of neighbours of train and test (Zhou et al. 2004).

    Transductive: training examples without a label, and test examples, are nodes; no test label is used. An example
    that no label reaches counts as wrong. The draws are those of `few_labels`, and so are the numbers returned.
    """
    (x, y), (x_test, y_test) = train, test
    graph = neighbour_graph(np.concatenate([x, x_test]).astype(np.float64))
    asked, right, beside = np.flatnonzero(y_test >= 0), [], []
    if not len(asked):
        raise UserError("label spreading needs labelled examples in the test split; give it a larger share")
    for draw, rows in enumerate(drawn(y, per_class, repeats, seed, names)):
        tell(draw, repeats)
        classes, places = np.unique(y[rows], return_inverse=True)
        seeds = np.zeros((len(x) + len(x_test), len(classes)))
        seeds[rows, places] = 1
        scores = spread_labels(graph, seeds)[len(x) + asked]
        predicted = np.where(scores.max(1) > 0, classes[scores.argmax(1)], -1)
        right.append(predicted == y_test[asked])
        beside.append((balanced(predicted, y_test[asked]), auroc(scores, y_test[asked], classes)))
    count = per_class * len(np.unique(y[y >= 0]))
    means = np.mean(beside, 0)
    chosen: Result = {"seed": seed, "neighbours": DEGREE, "alpha": ALPHA}
    chosen |= {"balanced": float(means[0]), "auroc": float(means[1])}
    return over_draws(np.array(right), count, SPREADING, per_class, chosen)


def neighbour_graph(features: np.ndarray, degree: int = DEGREE, weighed: bool = False) -> Any:
    """W (N, N), sparse: 1 where one of two examples is among the other's nearest by cosine, or that cosine (`weighed`).

    Cosines below 0 count as 0. No example is its own neighbour.
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(degree, len(features) - 1), algorithm="brute", metric="cosine")
    near = search.fit(features).kneighbors_graph(mode="distance")  # of each example but itself
    near.data = np.maximum(1 - near.data, 0) if weighed else np.ones_like(near.data)
    return near.maximum(near.T).tocsr()


def spread_labels(weights: Any, seeds: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """F (N, classes) with (I - alpha S) F = Y, the limit of spreading Y along S (Zhou et al. 2004, Eq. 4).

    S = D^-1/2 W D^-1/2. A node without neighbours keeps its row of Y.
    """
    from scipy.sparse import diags_array, eye_array
    from scipy.sparse.linalg import cg

    degree = np.asarray(weights.sum(1)).ravel()
    scale = diags_array(1 / np.sqrt(np.where(degree > 0, degree, 1)))
    system = (eye_array(len(seeds)) - alpha * (scale @ weights @ scale)).tocsr()
    return np.stack([cg(system, column, rtol=1e-6)[0] for column in seeds.T], 1)


def _at_length_one(features: np.ndarray) -> np.ndarray:
    from sklearn.preprocessing import normalize

    return normalize(features)
