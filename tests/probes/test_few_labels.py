"""Few labels: who is drawn, scikit-learn by hand on one draw, and intervals that hold what they say."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from diffrep.errors import UserError
from diffrep.probes.few_labels import drawn, few_labels, over_draws


def split(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, size)
    return np.eye(3)[y] * 2 + rng.normal(size=(size, 3)), np.where(rng.random(size) < 0.2, -1, y)


TRAIN, TEST = split(300, 0), split(200, 1)


def test_draws_are_so_many_of_each_class_and_repeat():
    """Labelled ones alone, none twice; another seed draws others; fewer of a class are the first of more."""
    draws = drawn(TRAIN[1], 5, 4, seed=0)
    for rows in draws:
        assert np.bincount(TRAIN[1][rows]).tolist() == [5, 5, 5] and len(set(rows)) == 15
    again, other = drawn(TRAIN[1], 5, 4, seed=0), drawn(TRAIN[1], 5, 4, seed=1)
    assert np.array_equal(draws, again) and not np.array_equal(draws, other)
    assert len({tuple(rows) for rows in draws}) == 4
    for few, more in zip(drawn(TRAIN[1], 2, 4, seed=0), draws, strict=True):
        assert set(few) <= set(more)


def test_every_example_is_drawn_as_often():
    """Over many draws each member of a class comes up alike: a chi-square test of the counts."""
    rows = np.concatenate(drawn(TRAIN[1], 5, 400, seed=0))
    for label in range(3):
        members = np.flatnonzero(TRAIN[1] == label)
        counts = np.bincount(rows, minlength=300)[members]
        assert stats.chisquare(counts).pvalue > 0.001


def test_one_draw_by_hand():
    """Centre, one scale, logistic regression at C = 1, the labelled test examples: for each draw of the same seed."""
    said = few_labels(TRAIN, TEST, 5, repeats=3, seed=7)
    mean, scale = TRAIN[0].mean(0), np.sqrt(((TRAIN[0] - TRAIN[0].mean(0)) ** 2).mean())
    known = TEST[1] >= 0
    scores = [
        LogisticRegression(C=1.0, max_iter=1000)
        .fit((TRAIN[0][rows] - mean) / scale, TRAIN[1][rows])
        .score((TEST[0][known] - mean) / scale, TEST[1][known])
        for rows in drawn(TRAIN[1], 5, 3, seed=7)
    ]
    assert said["accuracy"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert said["sd"] == pytest.approx(np.std(scores, ddof=1), abs=1e-12)
    assert (said["draws"], said["train_examples"], said["examples"]) == (3, 15, known.sum())
    low, high = stats.t.interval(0.95, 2, loc=np.mean(scores), scale=stats.sem(scores))
    assert (said["low"], said["high"]) == pytest.approx((low, high))


def test_rotations_and_units_change_nothing():
    """One scale for all features: turned and stretched as a whole, the same examples are told apart."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = [(x @ turn * 100 + 3, y) for x, y in (TRAIN, TEST)]
    assert few_labels(*turned, 5)["accuracy"] == pytest.approx(few_labels(TRAIN, TEST, 5)["accuracy"], abs=1e-3)


def test_intervals_hold_the_mean_over_all_draws():
    """Five draws whose accuracies are known to be 0.7 on average: 95 of 100 intervals hold it (by the normal
    distribution, in place of Student's, it would be 88)."""
    rng, held = np.random.default_rng(0), []
    for _ in range(2000):
        share = np.clip(0.7 + 0.08 * rng.normal(size=(5, 1)), 0, 1)
        said = over_draws(rng.random((5, 400)) < share, 1, "test", 1, {})
        held.append(said["low"] <= 0.7 <= said["high"])
    assert abs(np.mean(held) - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.slow
def test_intervals_of_other_seeds_agree():
    """Their difference, in units of its error, is about standard normal: the error is that of the mean over draws."""
    said = [few_labels(TRAIN, TEST, 1, repeats=12, seed=seed) for seed in range(40)]
    z = [
        (a["accuracy"] - b["accuracy"]) / np.hypot(a["se"], b["se"]) for a, b in zip(said[::2], said[1::2], strict=True)
    ]
    assert 0.6 < np.std(z) < 1.5


def test_the_error_of_the_test_split_is_its_spread():
    """Test examples of known difficulty, drawn again and again, with endless draws of labels."""
    rng = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(400):
        hard = rng.beta(2, 1, 100)
        said = over_draws(rng.random((500, 100)) < hard, 1, "test", 1, {})
        means.append(said["accuracy"])
        errors.append(said["test_se"])
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


def test_too_few_of_a_class_are_named():
    """Before anything is fitted."""
    with pytest.raises(UserError, match=r"class 2 has 1 labelled example in.*expected 5.*--few"):
        few_labels((TRAIN[0][:9], np.array([0, 1, 1, 0, 1, 2, 0, 0, 1])), TEST, 5)
    with pytest.raises(UserError, match="two draws"):
        few_labels(TRAIN, TEST, 5, repeats=1)
    with pytest.raises(UserError, match="larger share"):
        few_labels(TRAIN, (TEST[0], np.full(200, -1)), 5)


def test_a_class_that_is_too_small_is_named():
    """So that whoever asked knows which; the draws of fewer labels are those of more, whoever asks for them."""
    with pytest.raises(UserError, match=r"class cat has 2 .* expected 3"):
        drawn(np.array([0, 0, 0, 1, 1]), 3, 1, seed=0, names=["dog", "cat"])
    for one, first in zip(drawn(TRAIN[1], 4, 1, seed=0), drawn(TRAIN[1], 4, 5, seed=0), strict=False):
        assert np.array_equal(one, first)
