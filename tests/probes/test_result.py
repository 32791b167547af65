"""What stands beside a score: intervals that hold for two examples too, balanced accuracy and AUROC."""

import math

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from diffrep.measures import probe
from diffrep.probes.few_labels import over_draws
from diffrep.probes.result import accuracy, auroc, balanced, error_of, error_of_share, wilson
from diffrep.studies.table import Number, clear_best


@pytest.mark.parametrize("n", [2, 5, 30, 1000])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_interval_is_the_set_of_shares_that_do_not_contradict(n, share):
    """Its ends are the roots of (q - p)^2 = z^2 q (1 - q) / n, for 95 % and for one standard error."""
    for z, ends in ((1.959964, wilson(share, n)), (1.0, wilson(share, n, 1.0))):
        roots = np.sort(np.roots([1 + z**2 / n, -2 * share - z**2 / n, share**2]).real)
        assert ends == pytest.approx(tuple(roots), abs=1e-9)
    low, high = wilson(share, n, 1.0)
    assert error_of_share(share, n) == pytest.approx((high - low) / 2) and error_of_share(share, n) > 0


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Summed over all outcomes of 20 examples, for true shares from 0.05 to 0.95: 95 % on average."""
    outcomes, holds = np.arange(21), []
    for truth in np.linspace(0.05, 0.95, 91):
        inside = np.array([low <= truth <= high for low, high in (wilson(k / 20, 20) for k in outcomes)])
        holds.append(binom.pmf(outcomes, 20, truth) @ inside)
    assert np.mean(holds) == pytest.approx(0.95, abs=0.01)


def test_two_examples_are_no_certainty():
    """Two of two right say little: an error, an interval, and nothing in bold beside a run that has one wrong."""
    right, half = (accuracy(np.array(p), np.array([0, 1]), 9, "p", {}) for p in ([0, 1], [1, 1]))
    assert right["accuracy"] == 1 and right["se"] > 0.15 and right["low"] < 0.35
    numbers = [Number(r["accuracy"], r["se"], ends=(r["low"], r["high"])) for r in (right, half)]
    assert clear_best(numbers, lowest=False) is None
    assert clear_best([Number(1.0, 0.0), Number(0.5, 0.0)], lowest=False) is not None  # without the interval
    few = over_draws(np.ones((5, 2), bool), 2, "p", 1, {})
    assert few["se"] == 0 and error_of(few) == error_of_share(1.0, 2)


def test_balanced_accuracy_and_auroc_are_scikit_learns():
    """Two classes and four, uneven, with ties; a class that the test split lacks counts in neither."""
    rng = np.random.default_rng(0)
    for k in (2, 4):
        labels = rng.choice(k, 300, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
        scores = np.round(rng.normal(size=(300, k)) + 2 * np.eye(k)[labels], 1)
        predicted, classes = scores.argmax(1), np.arange(k)
        assert balanced(predicted, labels) == pytest.approx(balanced_accuracy_score(labels, predicted))
        if k == 2:
            difference = scores[:, 1] - scores[:, 0]
            assert auroc(difference, labels, classes) == pytest.approx(roc_auc_score(labels, difference))
        each = [roc_auc_score(labels == c, scores[:, c]) for c in classes]
        assert auroc(scores, labels, classes) == pytest.approx(np.mean(each))
        more = np.column_stack([scores, rng.normal(size=300)])
        assert auroc(more, labels, np.arange(k + 1)) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("value, shown", [(0.5, "0.500"), (math.nan, "-"), (None, "-")])
def test_an_auroc_of_one_class_is_a_dash(value, shown):
    """Test labels of one class have none: nan in Python, null in a file; without a number it is empty."""
    assert probe._number({"auroc": value}, "auroc") == shown and probe._number({}, "auroc") == ""
