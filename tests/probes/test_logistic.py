"""Logistic regression along a path: the slope by differences, the optimum of scikit-learn, and where the path ends."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from diffrep.probes import logistic
from diffrep.probes.linear import STRENGTHS
from diffrep.probes.logistic import cross_entropy_and_slope, path
from diffrep.probes.result import error_of_share


def parts(classes: int, size: int = 300, noise: float = 1.0):
    """Train, validation and test: labels 5, 8, ..., in four dimensions."""
    rng = np.random.default_rng(classes)
    centres = rng.normal(size=(classes, 4))
    labels = [rng.integers(0, classes, size) for _ in range(3)]
    return [(centres[y] + noise * rng.normal(size=(size, 4)), 3 * y + 5) for y in labels]


def test_the_loss_by_hand():
    """Two examples and two classes: log(1 + e^-2), log(1 + e^-1) and the penalty; its slope by central differences."""
    labelled = np.array([[1.0], [-0.5]], np.float32), np.array([0, 1])
    at = np.array([1.0, 0.2, -1.0, 0.2])  # weights 1 and -1; equal biases, which cancel
    nats, slope = cross_entropy_and_slope(at, labelled, 0.5, 2)
    assert nats == pytest.approx((np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2 + 0.5 / 2 * 2)
    for number, step in enumerate(np.eye(4) * 0.01):
        ends = [cross_entropy_and_slope(at + sign * step, labelled, 0.5, 2)[0] for sign in (1, -1)]
        assert slope[number] == pytest.approx((ends[0] - ends[1]) / 0.02, abs=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_each_fit_is_the_optimum_of_scikit_learn(classes):
    """Fitted to the end in double precision and from zero, its p of each class is ours within 0.002; two classes have
    one penalty for the difference of their weights."""
    train, valid, test = parts(classes)
    fits = list(path(train, valid, STRENGTHS))
    assert len(fits) == len(STRENGTHS)
    for strength, fit in zip(STRENGTHS, fits, strict=True):
        exact = LogisticRegression(C=strength, max_iter=10_000, tol=1e-10).fit(*train)
        scores = fit.decision_function(test[0])
        p = np.exp(scores - scores.max(1, keepdims=True))
        np.testing.assert_allclose(p / p.sum(1, keepdims=True), exact.predict_proba(test[0]), atol=2e-3)
        assert fit.score(*test) == pytest.approx(exact.score(*test), abs=2 / len(test[1]))
        assert set(fit.predict(test[0])) <= set(train[1])


def test_the_path_ends_below_one_standard_error():
    """With a validation split of strongly penalised fits' own labels, weaker ones fall off, and the path with them."""
    rng = np.random.default_rng(0)
    train = rng.normal(size=(60, 40)), rng.integers(0, 2, 60)
    x = rng.normal(size=(500, 40))
    first = next(path(train, (x, np.zeros(500)), STRENGTHS))
    valid = x, first.predict(x)
    scores = [fit.score(*valid) for fit in path(train, valid, STRENGTHS)]
    assert scores[0] == 1 and 1 < len(scores) < len(STRENGTHS)
    error = error_of_share(1.0, 500)
    assert min(scores[:-1]) >= 1 - error > scores[-1]


def test_a_fit_ends_where_validation_settles(monkeypatch):
    """A wide tolerance ends it at the second look, a narrow one goes on."""
    train, valid, _ = parts(5)
    rng = np.random.default_rng(1)
    train, valid = ((np.hstack([x, rng.normal(size=(len(x), 60))]), y) for x, y in (train, valid))
    calls = []
    real = logistic.cross_entropy_and_slope
    monkeypatch.setattr(logistic, "cross_entropy_and_slope", lambda *a: calls.append(a[2]) or real(*a))
    spent = []
    for tolerance in (1e9, 1e-12):
        monkeypatch.setattr(logistic, "TOLERANCE", tolerance)
        calls.clear()
        next(path(train, valid, [1e4]))
        spent.append(len(calls))
        assert calls.count(0.0) == 2 or tolerance < 1
    assert spent[0] < spent[1]


def test_a_class_of_validation_alone_is_wrong_and_stops_nothing():
    """log p of a class that training does not have is not asked for; it counts as a mistake."""
    train, valid, _ = parts(3)
    strange = np.concatenate([valid[0], valid[0]]), np.concatenate([valid[1], valid[1] * 0 + 99])
    one, other = (next(path(train, part, [1.0])) for part in (valid, strange))
    np.testing.assert_array_equal(one.weights, other.weights)
    assert other.score(*strange) == one.score(*valid) / 2
    alone = next(path(train, (valid[0], valid[1] * 0 + 99), [1.0]))
    np.testing.assert_allclose(alone.weights, one.weights, atol=0.02)


def test_the_path_ends_at_the_first_fit_that_is_one_standard_error_below():
    """Every sixth label of validation is wrong, so that the error is wide, and some fit lies between one and three."""
    rng = np.random.default_rng(0)
    train = rng.normal(size=(60, 40)), rng.integers(0, 2, 60)
    x, strengths = rng.normal(size=(500, 40)), np.geomspace(STRENGTHS[0], STRENGTHS[-1], 30)
    labels = next(path(train, (x, np.zeros(500)), STRENGTHS)).predict(x)
    labels[::6] = 1 - labels[::6]
    scores = [fit.score(x, labels) for fit in path(train, (x, labels), strengths)]
    below = [max(scores[: k + 1]) - score for k, score in enumerate(scores)]
    error = error_of_share(max(scores), 500)
    assert max(below[:-1]) <= error < below[-1] < 3 * error


def test_a_fit_is_the_iterate_at_which_validation_settles():
    """L-BFGS cut off by scipy after 20, 40, ... iterations: ours is the first whose validation cross-entropy, by
    scikit-learn, is within a thousandth of the one before."""
    rng = np.random.default_rng(1)
    noise = np.geomspace(0.01, 3, 60)
    train, valid = ((np.hstack([x, noise * rng.normal(size=(len(x), 60))]), y) for x, y in parts(5, noise=3.0)[:2])
    labelled, strength = (train[0].astype(np.float32), (train[1] - 5) // 3), 1e4
    before, looks = np.inf, 0
    while True:
        looks += 1
        options = {"maxiter": 20 * looks, "gtol": 1e-5, "ftol": 1e-8}
        about = labelled, 1 / (strength * len(train[0])), 5
        cut = minimize(cross_entropy_and_slope, np.zeros(5 * 65), about, jac=True, method="L-BFGS-B", options=options)
        weights, biases = np.split(cut.x.reshape(5, 65), [64], 1)
        scores = valid[0] @ weights.T + biases.T
        nats = log_loss(valid[1], softmax(scores, 1))
        if abs(nats - before) < 1e-3 * before < np.inf:
            break
        before = nats
    assert looks > 2 and cut.status == 1  # not at the optimum yet
    np.testing.assert_allclose(next(path(train, valid, [strength])).weights, weights, rtol=1e-4, atol=1e-5)


def test_a_fit_starts_where_the_one_before_ended(monkeypatch):
    """A second fit of the same strength has nothing left to do."""
    train, valid, _ = parts(3)
    calls = []
    real = logistic.cross_entropy_and_slope
    monkeypatch.setattr(logistic, "cross_entropy_and_slope", lambda *a: calls.append(a[2]) or real(*a))
    fits = path(train, valid, [1.0, 1.0])
    next(fits)
    first = len(calls)
    next(fits)
    assert len(calls) - first < first / 2
