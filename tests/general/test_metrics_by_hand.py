"""Oracle 7: every metric has a case worked out by hand, in which a swap of arguments or halves gives another number."""

import importlib
import inspect
import math
import pkgutil

import numpy as np
import pytest
import torch

from diffrep import probes
from diffrep.codes.posteriors import Code
from diffrep.evaluation.bound import active_units, effective_rank
from diffrep.evaluation.mutual_information import mutual_information
from diffrep.probes import few_labels, hypersphere, linear, neighbours, overlap, quality
from diffrep.probes.result import accuracy, auroc, balanced, error_of, error_of_share, score, wilson
from diffrep.shapes import Draws, bits_per_dim, mean_and_error

A, B = (torch.tensor(v).double()[:, None] for v in ([0.0, 2.0], [0.0, 4.0]))
REAL, FAKE = torch.arange(4.0)[:, None], torch.tensor([[0.5], [10.0], [11.0], [12.0]])

CASES = {
    "accuracy": lambda: [(r := accuracy(np.array([1, 1, 0]), np.array([1, 0, 0]), 9, "p", {}))["accuracy"], r["se"]],
    "error_of_share": lambda: [error_of_share(0.2, 4)],
    "wilson": lambda: [*wilson(1.0, 2)],
    "error_of": lambda: [error_of({"se": 3.0, "test_se": 4.0}), error_of({"se": 2.0})],
    "balanced": lambda: [balanced(np.array([1, 0, 0, 0]), np.array([1, 1, 0, 1]))],
    "auroc": lambda: [auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]), np.array([0, 1]))],
    "counted": lambda: [*(c := neighbours.counted(np.array([[1, 2, 2], [3, 1, 0]])))[0], *c[1][0]],
    "score": lambda: [score({"r2": 0.25}), score({"accuracy": 0.5})],
    "explained": lambda: [linear.explained(np.array([0.0, 2.0]), np.array([0.0, 1.0]))[0]],
    "over_draws": lambda: [
        (r := few_labels.over_draws(np.array([[1, 1, 0, 0], [1, 1, 1, 1]]), 2, "p", 1, {}))["accuracy"],
        r["se"],
        r["test_se"],
    ],
    "scaling": lambda: [*(s := few_labels.scaling(np.array([[0.0, 0.0], [2.0, 0.0]])))[0], s[1]],
    "vote": lambda: [*neighbours.vote(np.array([[1, 2, 2], [3, 1, 0]]))],
    "nearest": lambda: [*neighbours.nearest(np.array([[0.0], [10.0]]), np.array([[9.0]]), 2)[0]],
    "alignment": lambda: [hypersphere.alignment(np.array([[2.0, 0], [0, 1]]), np.array([[1.0, 0], [1, 0]]))],
    "uniformity": lambda: [hypersphere.uniformity(np.array([[2.0, 0], [0, 1]]))],
    "frechet": lambda: [quality.frechet(quality.Moments.of(A), quality.Moments.of(B))],
    "moments": lambda: [float((m := quality.moments([A, B[:1], B[1:]])).mean[0]), float(m.scatter), m.count],
    "precision_recall": lambda: [*quality.precision_recall(REAL, FAKE, k=1)],
    "overlap": lambda: [overlap.overlap(np.array([[1], [2]]), np.array([[2], [3], [3]]))],
    "bits_per_dim": lambda: [bits_per_dim(8 * math.log(2), (2, 2))],
    "mean_and_error": lambda: [*mean_and_error([1.0, 3.0, 8.0])],
    "active_units": lambda: [active_units(torch.tensor([[0.0, 0.0, 0.3], [0.05, 1.0, 0.0]]))],
    "effective_rank": lambda: [effective_rank(torch.tensor([[3.0, 0.0], [0.0, -1.0], [0.0, 0.0]]))],
    "mutual_information": lambda: [float(mutual_information(far(), Draws.of(0)).lower.mean())],
}
TRUTHS = {
    "accuracy": [2 / 3, math.sqrt(2 / 27 + 1 / 36) / (4 / 3)],
    "error_of_share": [math.sqrt(0.04 + 1 / 64) / 1.25],
    "wilson": [2 / (2 + 3.841459), 1.0],  # 1 / (1 + z^2 / n), z = 1.959964
    "error_of": [5.0, 2.0],
    "balanced": [(1 / 3 + 1) / 2],
    "auroc": [3.5 / 4],  # of four pairs three are in order, one is a tie
    "counted": [0, 1, 2, 3, 0, 1, 2, 0],
    "score": [0.25, 0.5],
    "explained": [0.5],  # 1 - (0 + 1) / (1 + 1)
    "over_draws": [0.75, 0.25, math.sqrt(0.0625 / 4 + 1 / 64) / 1.25],  # draws of 0.5 and 1; examples of 1, 1, 0.5, 0.5
    "scaling": [1.0, 0.0, math.sqrt(0.5)],  # variances 1 and 0
    "vote": [2, 0],
    "nearest": [1, 0],
    "alignment": [1.0],  # squared distances 0 and 2
    "uniformity": [-4.0],  # one pair, squared distance 2
    "frechet": [3.0],  # (1 - 2)^2 + 2 + 8 - 2 sqrt(16)
    "moments": [1.5, 11.0, 4],  # of 0, 2, 0, 4
    "precision_recall": [0.25, 1.0],
    "overlap": [1],
    "bits_per_dim": [2.0],
    "mean_and_error": [4.0, math.sqrt(13 / 3)],
    "active_units": [2],
    "effective_rank": [4 / 27**0.25],  # singular values 3 and 1: exp of the entropy of 3/4 and 1/4
    "mutual_information": [math.log(3)],  # three codes far apart
}
ELSEWHERE = {  # fitted models and graphs, which tests/probes holds to closed forms and other routes
    "appearance", "balanced", "best", "codes", "combined", "compare", "cross_entropy", "dci", "descend", "drawn", "fit",
    "few_labels", "is_discrete", "kernel_distance", "knn", "labelled", "linear", "mig", "mlp", "neighbour_graph", "pca",
    "pixels", "predicted", "probe_factors", "references", "regression", "sap", "scores_of", "sentence", "shuffled",
    "judged", "logistic", "path", "cross_entropy_and_slope", "perceptron", "quiet", "spread_labels", "thinned",
    "spread", "spreading", "standardised", "svm", "tad", "with_target", "protocols", "names_of", "counts_of",
}  # fmt: skip


def far() -> Code:
    return Code(torch.tensor([[0.0], [100.0], [-100.0]]), torch.ones(3, 1))


@pytest.mark.parametrize("name", CASES)
def test_a_case_by_hand(name):
    """The numbers beside this table, which nobody's program has printed."""
    assert [float(v) for v in CASES[name]()] == pytest.approx(TRUTHS[name])


def test_every_metric_of_the_probes_has_a_case():
    """A function that is added to probes/ is worked out here, or named as one that other tests hold."""
    public = set()
    for info in pkgutil.iter_modules(probes.__path__):
        module = importlib.import_module(f"diffrep.probes.{info.name}")
        public |= {
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
        }
    missing = public - set(CASES) - ELSEWHERE
    assert not missing, f"work out a case by hand for {', '.join(sorted(missing))}"
