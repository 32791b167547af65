"""Multinomial logistic regression at rising strengths, in float32, each fit started where the one before ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diffrep.probes.result import Split, error_of_share

CHECK = 20  # iterations between two looks at the validation split
TOLERANCE = 1e-3  # a fit ends where its validation cross-entropy changes by a smaller share between two looks
MOST = 1000  # iterations


@dataclass(frozen=True)
class Logistic:
    """p(k | x) in proportion to exp(weights_k x + bias_k): weights (K, d), biases (K,), names of the classes (K,)."""

    weights: np.ndarray
    biases: np.ndarray
    classes_: np.ndarray  # as scikit-learn calls them

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        """(N, K) log p(k | x) of features (N, d), up to a constant of each example."""
        return x @ self.weights.T + self.biases

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(N,) the likeliest class."""
        return self.classes_[self.decision_function(x).argmax(1)]

    def score(self, x: np.ndarray, y: np.ndarray) -> float:
        """The share of examples whose class is predicted."""
        return float((self.predict(x) == y).mean())


def path(train: Split, valid: Split, strengths: Sequence[float]) -> Iterator[Logistic]:
    """The fit of each strength C, which rise: the least of sum -log p(y | x) + |weights|^2 / 2 C, by L-BFGS.

    Each fit starts from the one before, and ends at `TOLERANCE`. The path ends after a fit whose validation accuracy is
    more than one standard error below the highest: weaker penalties fit train better still. With two classes the
    penalty is that of their difference, as in scikit-learn.
    """
    classes, places = np.unique(train[1], return_inverse=True)
    known = np.isin(valid[1], classes)  # log p of a class that training does not have would be infinite
    x, x_valid = (np.asarray(part, np.float32) for part in (train[0], valid[0]))
    asked = x_valid[known], np.searchsorted(classes, valid[1][known])
    flat, highest = np.zeros(len(classes) * (x.shape[1] + 1)), 0.0
    for strength in strengths:
        penalty = (2 if len(classes) == 2 else 1) / (strength * len(x))
        flat = _descended(flat, (x, places), asked, penalty, len(classes))
        weights, biases = _parted(flat, len(classes))
        fit = Logistic(weights, biases, classes)
        yield fit
        score = fit.score(x_valid, valid[1])
        highest = max(highest, score)
        if score < highest - error_of_share(highest, len(x_valid)):
            return


def cross_entropy_and_slope(
    flat: np.ndarray, labelled: Split, penalty: float, classes: int
) -> tuple[float, np.ndarray]:
    """Mean -log p(y | x) + penalty |weights|^2 / 2 and its gradient; `flat` holds (weights, bias) of each class."""
    (x, y), (weights, biases) = labelled, _parted(flat, classes)
    scores, rows = x @ weights.T + biases, np.arange(len(x))
    scores -= scores.max(1, keepdims=True)
    own = scores[rows, y].copy()
    p = np.exp(scores, out=scores)
    whole = p.sum(1)
    nats = float((np.log(whole) - own).mean(dtype=np.float64))
    p /= whole[:, None] * len(x)
    p[rows, y] -= np.float32(1 / len(x))
    slope = np.concatenate([p.T @ x + np.float32(penalty) * weights, p.sum(0)[:, None]], 1)
    return nats + penalty / 2 * float(np.square(weights, dtype=np.float64).sum()), slope.ravel().astype(np.float64)


def _descended(flat: np.ndarray, train: Split, valid: Split, penalty: float, classes: int) -> np.ndarray:
    from scipy.optimize import minimize

    stop = _settled(lambda at: cross_entropy_and_slope(at, valid, 0.0, classes)[0]) if len(valid[0]) else None
    options = {"maxiter": MOST, "gtol": 1e-5, "ftol": 1e-8}
    how = {"jac": True, "method": "L-BFGS-B", "callback": stop, "options": options}
    return minimize(cross_entropy_and_slope, flat, (train, penalty, classes), **how).x


def _settled(judge: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], None]:
    """A callback of scipy that ends a fit once what `judge` says hardly changes any more."""
    said: list[float] = []
    calls = 0

    def look(at: np.ndarray) -> None:
        nonlocal calls
        calls += 1
        if calls % CHECK == 0:
            said.append(judge(at))
            if len(said) > 1 and abs(said[-1] - said[-2]) < TOLERANCE * said[-2]:
                raise StopIteration

    return look


def _parted(flat: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, d) and biases (K,), float32."""
    whole = flat.reshape(classes, -1).astype(np.float32)
    return whole[:, :-1], whole[:, -1]
