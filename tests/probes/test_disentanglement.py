"""Disentanglement on codes whose scores are known: ideal, turned, doubled; and what each score must not notice."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from diffrep.errors import UserError
from diffrep.probes.disentanglement import dci, mig, sap, tad

SCORES = {
    "dci": lambda codes, factors: dci(codes, factors)["disentanglement"],
    "completeness": lambda codes, factors: dci(codes, factors)["completeness"],
    "mig": lambda codes, factors: mig(codes, factors)["score"],
    "sap": lambda codes, factors: sap(codes, factors)["score"],
    "tad": lambda codes, factors: tad(codes, factors)["score"],
}


@pytest.fixture(scope="module")
def grid():
    """Three factors of 2, 3 and 4 values, every combination equally often: independent in the sample itself."""
    every = np.array(list(itertools.product(range(2), range(3), range(4))), float)
    return np.tile(every, (20, 1))


@pytest.fixture(scope="module")
def quantities():
    """Two factors that are uniform and independent, nearly so in the sample: one draw in each cell of a square grid."""
    rng = np.random.default_rng(0)
    cells = np.array(list(itertools.product(range(32), repeat=2)))
    return rng.permutation((cells + rng.random(cells.shape)) / 16 - 1)


def turned(values, degrees):
    """The first two numbers, turned by an angle."""
    a = np.deg2rad(degrees)
    return values[:, :2] @ np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def test_an_ideal_code_has_the_best_scores(grid):
    """Each number is one factor. MIG: all of H(v) in one number, nothing in another. SAP: 1 less chance, 1/values.
    TAD: the two-valued factor is one attribute and the others one for each value, of which a threshold on the number
    tells the outer ones without a mistake; a value in the middle of three or four it tells by chance (1/2), or nearly
    (2/3 for one of four, below 0.75), and no other number knows any: 1 + 2 + 2 captured at 1 - 1/2 each."""
    codes = np.stack([3 * grid[:, 1] - 1, -grid[:, 0], grid[:, 2]], 1)
    found = dci(codes, grid)
    assert found["disentanglement"] == pytest.approx(1, abs=0.01) and found["completeness"] == pytest.approx(
        1, abs=0.01
    )
    assert found["informativeness"] == 1
    assert mig(codes, grid)["score"] == pytest.approx(1)
    assert sap(codes, grid)["score"] == pytest.approx(1 - (1 / 2 + 1 / 3 + 1 / 4) / 3, abs=0.06)
    assert tad(codes, grid) == {"score": pytest.approx(2.5), "captured": 5, "attributes": 8, "protocol": "tad-1"}


def test_an_ideal_code_of_quantities_has_the_best_scores(quantities):
    """The same where factors are continuous: R^2 of a number with itself is 1, with an independent one nothing."""
    found = dci(quantities, quantities)
    assert min(found["disentanglement"], found["completeness"], found["informativeness"]) > 0.98
    assert sap(quantities, quantities)["score"] == pytest.approx(1, abs=0.01)
    assert mig(quantities, quantities)["score"] > 0.9  # less by the bias of histograms, 361 / 2N of log 20
    found = tad(quantities, quantities)
    assert found["score"] == pytest.approx(1, abs=0.01) and found["captured"] == 2


@pytest.mark.parametrize("name", SCORES)
def test_a_turned_code_has_none(name, quantities):
    """After 45 degrees each number holds as much of one factor as of the other: every gap closes, nothing is lost."""
    assert SCORES[name](turned(quantities, 45), quantities) < 0.03
    assert dci(turned(quantities, 45), quantities)["informativeness"] > 0.9


def test_a_doubled_factor_is_disentangled_and_not_complete(quantities):
    """Two numbers share factor 0, a third has factor 1: no number mixes factors, so D = 1; with the importance split
    in halves over two of three numbers, C = 1 - log 2 / log 3 for factor 0. Gaps between the doubles are zero."""
    codes = np.stack([quantities[:, 0], quantities[:, 0], quantities[:, 1]], 1)
    found = dci(codes, quantities)
    assert found["disentanglement"] > 0.98
    assert found["completeness"] == pytest.approx((1 - np.log(2) / np.log(3) + 1) / 2, abs=0.05)
    for gap in (mig, sap):
        double, single = gap(codes, quantities)["by_factor"]
        assert double == pytest.approx(0, abs=1e-12) and single > 0.9
    assert tad(codes, quantities)["score"] == pytest.approx(0.5, abs=0.01) and tad(codes, quantities)["captured"] == 2


def test_disentanglement_of_importances_by_hand():
    """Number 0 is used for both factors and number 1 for one of them alone: D weighs a mixed number against a pure one
    by what is read from them, with the entropies written out from the importances that are returned."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(600, 2))
    found = dci(z, np.stack([z[:, 0], z[:, 0] + z[:, 1]], 1))
    (a, b), (c, d) = found["importances"]
    assert a > 0.98 and b == pytest.approx(0.5, abs=0.1) and c < 0.02 and b + d == pytest.approx(1)

    def entropy(*shares):
        return -sum(p / sum(shares) * np.log2(p / sum(shares)) for p in shares if p)

    rho = (a + b) / (a + b + c + d)
    assert found["disentanglement"] == pytest.approx(rho * (1 - entropy(a, b)) + (1 - rho) * (1 - entropy(c, d)))
    assert found["completeness"] == pytest.approx(1 - (entropy(a, c) + entropy(b, d)) / 2)


def test_mig_of_a_noisy_switch_is_that_of_the_channel():
    """Number 0 repeats a fair coin and number 1 repeats it with one mistake in ten, exactly: I = log 2 - H(1/10)."""
    coin = np.tile([0, 1], 500).astype(float)
    wrong = coin.copy()
    wrong[:100] = 1 - wrong[:100]
    h = -(0.1 * np.log(0.1) + 0.9 * np.log(0.9))
    assert mig(np.stack([coin, wrong], 1), coin[:, None])["score"] == pytest.approx(h / np.log(2))


def test_tad_is_the_difference_of_aurocs(quantities):
    """scikit-learn's areas, either way round, for one binary attribute read from three noisy numbers with ties."""
    rng = np.random.default_rng(2)
    y = (rng.random(400) < 0.3).astype(float)
    codes = np.stack([y + rng.normal(size=400), np.round(-2 * y + rng.normal(size=400)), rng.normal(size=400)], 1)
    areas = [roc_auc_score(y, z) for z in codes.T]
    best, second, _ = sorted((max(a, 1 - a) for a in areas), reverse=True)
    assert tad(codes, y[:, None]) == {
        "score": pytest.approx(best - second), "captured": 1, "attributes": 1, "protocol": "tad-1"
    }  # fmt: skip
    weak = np.stack([y + 2.5 * rng.normal(size=400), codes[:, 2]], 1)  # below 0.75: not captured
    assert max(roc_auc_score(y, weak[:, 0]), 0.5) < 0.75 and tad(weak, y[:, None])["captured"] == 0


def test_tad_leaves_out_what_another_factor_tells():
    """A factor and its copy with few mistakes remove most of each other's entropy; an independent one stays."""
    rng = np.random.default_rng(3)
    a, c = (rng.integers(0, 2, 1000).astype(float) for _ in range(2))
    b = np.where(rng.random(1000) < 0.02, 1 - a, a)
    codes = np.stack([a, c, rng.normal(size=1000)], 1)
    found = tad(codes, np.stack([a, b, c], 1))
    assert (found["attributes"], found["captured"]) == (1, 1) and found["score"] == pytest.approx(0.5, abs=0.05)
    b = np.where(rng.random(1000) < 0.4, 1 - a, a)  # I / H = 1 - H2(0.4) = 0.03 by the channel's formula
    assert tad(codes, np.stack([a, b, c], 1))["attributes"] == 3


@pytest.mark.parametrize("name", SCORES)
def test_scores_do_not_depend_on_the_order_or_the_scale_of_numbers(name, quantities):
    """Axes of a code have no order and no unit."""
    mixed = np.concatenate([turned(quantities, 20), np.random.default_rng(4).normal(size=(len(quantities), 1))], 1)
    score = SCORES[name](mixed, quantities)
    assert SCORES[name](mixed[:, [2, 0, 1]], quantities) == pytest.approx(score, abs=1e-2)  # trees break ties by order
    assert SCORES[name](mixed * [2.0, 4.0, 0.5], quantities) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("name", ["dci", "completeness", "tad"])
def test_scores_of_order_alone_do_not_see_increasing_maps(name, quantities):
    """Trees and areas under ROC curves know the order of values alone, up to where a threshold falls between them."""
    mixed = turned(quantities, 20)
    assert SCORES[name](np.exp(3 * mixed), quantities) == pytest.approx(SCORES[name](mixed, quantities), abs=0.02)


def test_what_is_discrete_can_be_said(grid):
    """With 4 values a factor counts as classes, unless it is said to be a quantity: then R^2 and not accuracy."""
    codes = np.stack([grid[:, 2] + 0.3 * np.random.default_rng(5).normal(size=len(grid)), grid[:, 0]], 1)
    r2 = np.corrcoef(codes[:, 0], grid[:, 2])[0, 1] ** 2
    assert sap(codes, grid[:, 2:], discrete=[False])["score"] == pytest.approx(r2)
    assert sap(codes, grid[:, 2:])["score"] != pytest.approx(r2, abs=0.01)


@pytest.mark.parametrize(
    "codes, factors, said",
    [
        (np.zeros((9, 2)), np.arange(8)[:, None], "same"),
        (np.zeros((9, 2)), np.zeros((9, 1)), "one value"),
        (np.full((9, 2), np.nan), np.arange(9)[:, None], "NaN"),
        (np.zeros((9, 1)), np.arange(9)[:, None], "best two"),
    ],
)
def test_a_mistake_is_one_sentence(codes, factors, said):
    """What cannot be compared is said before anything is computed."""
    with pytest.raises(UserError, match=said):
        mig(codes, factors)


def test_sap_weighs_values_and_not_examples():
    """A number is 1 for every example of a rare value and for a third of the frequent one: the threshold in between
    judges 2/3 of the one and all of the other right, 5/6; a number that says nothing has 1/2."""
    frequent = np.arange(3000) % 10 > 0
    tells = np.where(frequent, np.arange(3000) // 10 % 3 == 0, 1).astype(float)
    codes = np.stack([tells, np.zeros(3000)], 1)
    assert sap(codes, frequent[:, None].astype(float))["score"] == pytest.approx(5 / 6 - 1 / 2, abs=0.02)
