"""Probes against scikit-learn step by step, and that nothing of the test split is chosen by."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.svm import SVC

from diffrep.errors import UserError
from diffrep.probes.linear import ALPHAS, STRENGTHS, SVM_STRENGTHS, best, explained, linear, regression, svm, thinned
from diffrep.probes.mlp import mlp
from diffrep.probes.neighbours import knn
from diffrep.probes.protocols import protocols

pytestmark = pytest.mark.slow

SIZES = (120, 150, 200)
CLASSIFIERS = [linear, svm, knn, lambda *parts: mlp(*parts, epochs=4)]


@pytest.fixture(scope="module")
def splits():
    """Three classes in five dimensions that overlap, with features of very different scales."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 5))

    def split(size):
        y = rng.integers(0, 3, size)
        return (centres[y] + 1.2 * rng.normal(size=(size, 5))) * np.array([1, 1e3, 1e-3, 1, 10.0]) + 5, y

    return [split(size) for size in SIZES]


def by_hand(train, valid, test, make=lambda c: LogisticRegression(C=c, max_iter=1000), choices=STRENGTHS):
    """Standardise by the training split, fit every choice, keep the best on validation, predict the test split."""
    mean, std = train[0].mean(0), train[0].std(0)
    (x, x_valid, x_test) = ((part[0] - mean) / std for part in (train, valid, test))
    fits = {c: make(c).fit(x, train[1]) for c in choices}
    score = {c: fit.score(x_valid, valid[1]) for c, fit in fits.items()}
    best = min(c for c in choices if score[c] == max(score.values()))
    return best, fits[best].predict(x_test)


@pytest.mark.parametrize(
    "probe, make, choices",
    [
        (linear, lambda c: LogisticRegression(C=c, max_iter=1000), STRENGTHS),
        (svm, lambda c: SVC(C=c, kernel="rbf", gamma="scale"), SVM_STRENGTHS),
    ],
)
def test_a_probe_is_scikit_learn_step_by_step(probe, make, choices, splits):
    """The protocol spelled out; its error is that of a share of the test examples."""
    said, (strength, predicted) = probe(*splits), by_hand(*splits, make, choices)
    accuracy = (predicted == splits[2][1]).mean()
    assert said["strength"] == strength and said["accuracy"] == accuracy
    low, high = np.sort(
        np.roots([1 + 1 / SIZES[2], -2 * accuracy - 1 / SIZES[2], accuracy**2])
    )  # (q - p)^2 = q(1 - q)/n
    assert said["se"] == pytest.approx((high - low) / 2)
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


@pytest.mark.parametrize("probe", CLASSIFIERS)
def test_the_score_is_honest_where_there_is_nothing_to_learn(probe):
    """Labels that are drawn apart from the features: over many test splits every probe is right in one case of three.
    A maximum over choices or epochs on the split that is reported, or copies of train in it, would stand above."""
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(30):
        parts = [(rng.normal(size=(40, 3)), rng.integers(0, 3, 40)) for _ in range(3)]
        scores.append(probe(*parts)["accuracy"])
    assert abs(np.mean(scores) - 1 / 3) < 3 * math.sqrt(2 / 9 / 40 / 30)


@pytest.mark.parametrize("probe", CLASSIFIERS)
def test_choices_look_at_validation_and_not_at_train_or_test(probe, splits):
    """What was chosen is the same whatever the labels of the test split; the score is that of these labels."""
    train, valid, test = splits
    said = probe(*splits)
    other = (test[0], (test[1] + 1) % 3)
    again = probe(train, valid, other)
    chosen = said.keys() - {"accuracy", "se", "low", "high", "balanced", "auroc"}
    assert {name: said[name] for name in chosen} == {name: again[name] for name in chosen}
    assert again["accuracy"] < 1 - said["accuracy"] + 1e-9


def test_of_equally_good_fits_the_first_stays():
    """The strongest penalty among equals, the fewest neighbours; after a fit without a mistake none is made."""

    class Fit:
        def __init__(self, score):
            self.score = lambda x, y: score

    made = []
    fits = (made.append(score) or Fit(score) for score in (0.5, 0.8, 0.8, 0.3))
    assert best(fits, (np.zeros((1, 1)), np.zeros(1)))[0] == 1 and len(made) == 4
    assert best((made.append(s) or Fit(s) for s in (0.5, 1.0, 1.0)), (np.zeros((1, 1)), np.zeros(1)))[0] == 1
    assert len(made) == 6
    rng = np.random.default_rng(0)
    apart = [(np.eye(2)[y] * 9 + 4 + rng.normal(size=(60, 2)), y) for y in rng.integers(0, 2, (3, 60))]
    assert (knn(*apart)["metric"], knn(*apart)["k"]) == ("euclidean", 1)


def test_choosing_on_train_would_be_seen():
    """Half of the labels are wrong, so one neighbour, which copies them, is far from best; yet on the training split
    itself, where each example is its own neighbour, it makes no mistake and would be chosen."""
    rng = np.random.default_rng(0)

    def split(size):
        y = rng.integers(0, 2, size)
        return rng.normal(size=(size, 2)) + 4 * y[:, None], np.where(rng.random(size) < 0.3, 1 - y, y)

    train, valid, test = split(300), split(300), split(300)
    assert knn(train, valid, test)["k"] > 5
    assert knn(train, train, test)["k"] == 1  # what the trap looks like


@pytest.mark.parametrize("probe", CLASSIFIERS)
def test_examples_without_a_label_are_left_out(probe, splits):
    """-1 is no label: as if those examples were not there, in every split."""
    marked = [(x, np.where(np.arange(len(y)) % 4 == 0, -1, y)) for x, y in splits]
    kept = [(x[y >= 0], y[y >= 0]) for x, y in marked]
    assert probe(*marked) == probe(*kept)


def test_most_training_examples_are_the_first(splits):
    """A cap on the training split is the same as a shorter training split."""
    train, valid, test = splits
    assert linear(*splits, most=60) == linear((train[0][:60], train[1][:60]), valid, test)


@pytest.mark.parametrize("name", ["linear", "regression"])
def test_by_name_all_training_examples_count(name):
    """`diffrep probe --most 60000` has chosen them; a second cut to the first 20,000 would drop the last classes."""
    y = np.repeat([0, 1], [20_000, 100])
    part = (y[:, None].astype(np.float64), y)
    assert protocols([name], numbers=name == "regression")[name].measure(part, part, part)["train_examples"] == 20_100


def test_most_training_examples_of_others_are_thinned(splits):
    """A split in the order of its classes keeps all of them under a cap."""
    order = np.argsort(splits[0][1], kind="stable")
    train = splits[0][0][order], splits[0][1][order]
    assert len(np.unique(thinned(train, 9)[1])) == 3
    assert svm(train, *splits[1:], most=60) == svm(thinned(train, 60), *splits[1:])
    assert svm(train, *splits[1:], most=60)["train_examples"] == 60


@pytest.mark.parametrize("probe", CLASSIFIERS)
def test_labels_that_are_missing_are_named(probe, splits):
    """One class to learn, nothing to choose or to score by, or features that are no numbers."""
    train, valid, test = splits
    with pytest.raises(UserError, match="two classes"):
        probe((train[0], np.zeros_like(train[1])), valid, test)
    for parts in [(train, (valid[0], valid[1] * 0 - 1), test), (train, valid, (test[0], test[1] * 0 - 1))]:
        with pytest.raises(UserError, match="larger share"):
            probe(*parts)
    with pytest.raises(UserError, match="finite"):
        probe((train[0] * np.nan, train[1]), valid, test)


def factor(splits, noise=0.5):
    """A number that depends on the features, some of it not known."""
    rng = np.random.default_rng(3)
    parts = []
    for x, _ in splits:
        y = x @ np.array([1, 1e-3, 1e3, -1, 0.1]) + noise * rng.normal(size=len(x))
        parts.append((x, np.where(rng.random(len(x)) < 0.1, np.nan, y)))
    return parts


def test_regression_is_scikit_learn_step_by_step(splits):
    """Ridge on standardised features, alpha by R^2 on validation, R^2 of the test split; NaN is no value."""
    parts = factor(splits)
    known = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in parts]
    said = regression(*parts)
    alpha, predicted = by_hand(*known, lambda alpha: Ridge(alpha=alpha), ALPHAS)
    assert said["strength"] == alpha and said["r2"] == pytest.approx(r2_score(known[2][1], predicted), abs=1e-12)
    assert said["examples"] == len(known[2][1]) < SIZES[2]
    assert 0.9 < said["r2"] < 1


def test_the_error_of_r2_is_its_spread_over_test_splits():
    """Drawn again and again, R^2 of a fixed prediction varies as the error says: by simulation."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(3000, 200))
    found = [explained(row, 0.8 * row + 0.3 * rng.normal(size=200)) for row in y]
    r2, errors = np.array(found).T
    assert errors.mean() == pytest.approx(r2.std(), rel=0.05)
    assert r2.mean() == pytest.approx(1 - 0.04 - 0.09, abs=0.005)


def test_a_factor_without_different_values_is_named(splits):
    """R^2 divides by the spread of the test split."""
    train, valid, test = factor(splits)
    with pytest.raises(UserError, match="test split"):
        regression(train, valid, (test[0], test[1] * 0 + 1))
