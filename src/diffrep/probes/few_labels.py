"""Few labels: the accuracy of a classifier with a few labels of each class, over many draws of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from diffrep.amounts import amount
from diffrep.errors import UserError
from diffrep.probes.linear import with_target
from diffrep.probes.result import Result, Split, auroc, balanced, error_of_share, quiet
from diffrep.progress import Part, unsaid

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

FEW = "few-labels-1"  # centred, one scale for all features, by all of train; logistic regression at C = 1; no choices
STRENGTH = 1.0  # fixed: to choose it would take more labels than there are for training


@quiet
def few_labels(
    train: Split,
    test: Split,
    per_class: int,
    repeats: int = 20,
    seed: int = 0,
    names: Sequence[str] | None = None,
    tell: Part = unsaid,
) -> Result:
    """Logistic regression on `per_class` training examples of each class, drawn `repeats` times; see `over_draws`.

    Nothing is chosen: the strength of the penalty is the same for all features and all numbers of labels. Features are
    centred and divided by one number, so that their variance over train is 1 on average: the result does not change
    under rotation, and features that hardly vary are not scaled up. names: of the classes. UserError where a class has
    fewer examples.
    """
    y, (x_test, y_test) = train[1], with_target(test, test[1] >= 0)
    if not len(y_test):
        raise UserError("few labels need labelled examples in the test split; give it a larger share")
    centre, scale = scaling(train[0])
    x_test = (x_test - centre) / scale
    right, beside = [], []
    for draw, rows in enumerate(drawn(y, per_class, repeats, seed, names)):
        tell(draw, repeats)
        fit = regression((train[0][rows] - centre) / scale, y[rows])
        predicted = fit.predict(x_test)
        right.append(predicted == y_test)
        beside.append((balanced(predicted, y_test), auroc(fit.decision_function(x_test), y_test, fit.classes_)))
    means = np.mean(beside, 0)
    chosen: Result = {"seed": seed, "strength": STRENGTH, "balanced": float(means[0]), "auroc": float(means[1])}
    return over_draws(np.array(right), per_class * len(np.unique(y[y >= 0])), FEW, per_class, chosen)


def drawn(
    labels: np.ndarray, per_class: int, repeats: int, seed: int, names: Sequence[str] | None = None
) -> list[np.ndarray]:
    """For each draw, the positions of `per_class` examples of each class in `labels` (N,); -1 is no label.

    They depend on labels and seed alone, so all features are compared on the same ones. A larger `per_class` adds
    examples to those of a smaller one. names: of the classes. UserError: a class with fewer examples, or one class.
    """
    classes = np.unique(labels[labels >= 0])
    if len(classes) < 2:
        raise UserError(f"few labels need two classes at least, got {len(classes)}")
    members = {int(c): np.flatnonzero(labels == c) for c in classes}
    scarce = min(members, key=lambda c: len(members[c]))
    if len(members[scarce]) < per_class:
        name = names[scarce] if names else scarce
        raise UserError(
            f"class {name} has {amount(len(members[scarce]), 'labelled example')} in the training split, expected"
            f" {per_class} for each class: ask for fewer by --few, or by --labels-per-class of `diffrep semi`."
        )
    generators = [np.random.default_rng([seed, draw]) for draw in range(repeats)]
    return [
        np.concatenate([generator.permutation(rows)[:per_class] for rows in members.values()])
        for generator in generators
    ]


def over_draws(right: np.ndarray, train_examples: int, protocol: str, per_class: int, chosen: Result) -> Result:
    """From right (repeats, N), bool: the mean accuracy, and its 95 % interval over draws by Student's t.

    se: standard error of that mean over draws, on this test split. sd: of the draws. test_se: standard error of the
    mean over test splits of that size.
    """
    from scipy.stats import t

    repeats, examples = right.shape
    if repeats < 2:
        raise UserError(f"an interval over draws needs two draws at least, got {repeats}; ask for more")
    each = right.mean(1)
    mean, sd = float(each.mean()), float(each.std(ddof=1))
    half = float(t.ppf(0.975, repeats - 1)) * sd / math.sqrt(repeats)
    return {
        "accuracy": mean,
        "se": sd / math.sqrt(repeats),
        "low": mean - half,
        "high": mean + half,
        "sd": sd,
        "test_se": error_of_share(mean, examples, float(right.mean(0).var())),
        "draws": repeats,
        "per_class": per_class,
        "examples": examples,
        "train_examples": train_examples,
        **chosen,
        "protocol": protocol,
    }


def scaling(features: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (d,) and one scale: features (N, d), centred and divided by the scale, have variance 1 on average."""
    features = np.asarray(features, dtype=np.float64)
    return features.mean(0), math.sqrt(features.var(0).mean()) or 1.0


@quiet
def regression(x: np.ndarray, y: np.ndarray) -> LogisticRegression:
    """Multinomial logistic regression of classes (n,) on scaled features (n, d), its penalty fixed."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=STRENGTH, max_iter=1000).fit(x, y)


def scores_of(fit: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """Weights (classes, d) and biases (classes,) of a regression; for two classes, of which scikit-learn keeps one row,
    both rows."""
    if len(fit.classes_) > 2:
        return fit.coef_, fit.intercept_
    return np.vstack([0 * fit.coef_, fit.coef_]), np.concatenate([0 * fit.intercept_, fit.intercept_])
