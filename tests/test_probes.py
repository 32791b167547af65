"""Probes against scikit-learn step by step, and that nothing of the test split is chosen by."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from diffrep.errors import UserError
from diffrep.evaluation.probes import STRENGTHS, linear

SIZES = (120, 150, 200)


@pytest.fixture(scope="module")
def splits():
    """Three classes in five dimensions that overlap, with features of very different scales."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 5))

    def split(size):
        y = rng.integers(0, 3, size)
        return (centres[y] + 1.2 * rng.normal(size=(size, 5))) * np.array([1, 1e3, 1e-3, 1, 10.0]) + 5, y

    return [split(size) for size in SIZES]


def by_hand(train, valid, test):
    """Standardise by the training split, fit every strength, keep the best on validation, score the test split."""
    mean, std = train[0].mean(0), train[0].std(0)
    (x, x_valid, x_test) = ((part[0] - mean) / std for part in (train, valid, test))
    fits = {c: LogisticRegression(C=c, max_iter=1000).fit(x, train[1]) for c in STRENGTHS}
    right = {c: (fit.predict(x_valid) == valid[1]).mean() for c, fit in fits.items()}
    best = min(c for c in STRENGTHS if right[c] == max(right.values()))
    return best, (fits[best].predict(x_test) == test[1]).mean()


def test_linear_is_scikit_learn_step_by_step(splits):
    """The protocol spelled out; its error is that of a share of the test examples."""
    said, (strength, accuracy) = linear(*splits), by_hand(*splits)
    assert said["strength"] == strength and said["accuracy"] == pytest.approx(accuracy)
    assert said["se"] == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / SIZES[2]))
    assert (said["examples"], said["train_examples"]) == (SIZES[2], SIZES[0])


def test_the_strength_is_chosen_on_validation_alone(splits):
    """With the labels of the test split shuffled the choice stays; with validation labels that one strength predicts
    without a mistake, that strength (or a lower one, as good) is chosen."""
    train, valid, test = splits
    shuffled = (test[0], np.random.default_rng(1).permutation(test[1]))
    assert linear(train, valid, shuffled)["strength"] == linear(*splits)["strength"]
    mean, std = train[0].mean(0), train[0].std(0)
    chosen = set()
    for strength in (STRENGTHS[0], STRENGTHS[-1]):
        fit = LogisticRegression(C=strength, max_iter=1000).fit((train[0] - mean) / std, train[1])
        other = (valid[0], fit.predict((valid[0] - mean) / std))
        chosen.add(linear(train, other, test)["strength"])
        assert linear(train, other, test)["strength"] == by_hand(train, other, test)[0]
    assert len(chosen) == 2


def test_examples_without_a_label_are_left_out(splits):
    """-1 is no label: as if those examples were not there, in every split."""
    marked = [(x, np.where(np.arange(len(y)) % 4 == 0, -1, y)) for x, y in splits]
    kept = [(x[y >= 0], y[y >= 0]) for x, y in marked]
    assert linear(*marked) == linear(*kept)


def test_most_training_examples_are_the_first(splits):
    """A cap on the training split is the same as a shorter training split."""
    train, valid, test = splits
    assert linear(*splits, most=60) == linear((train[0][:60], train[1][:60]), valid, test)


def test_labels_that_are_missing_are_named(splits):
    """One class to learn, or nothing to choose or to score by."""
    train, valid, test = splits
    with pytest.raises(UserError, match="two classes"):
        linear((train[0], np.zeros_like(train[1])), valid, test)
    for parts in [(train, (valid[0], valid[1] * 0 - 1), test), (train, valid, (test[0], test[1] * 0 - 1))]:
        with pytest.raises(UserError, match="larger share"):
            linear(*parts)
