"""How far single numbers of a code correspond to single factors: DCI, MIG, SAP, TAD. Arrays in, numbers out.

For all of them: codes (N, d); factors (N, k) numbers, a class as its index. A factor with at most 20 different whole
numbers is discrete and any other continuous, unless `discrete` (k,) states it. Every result names its protocol.
UserError: shapes that do not fit, numbers that are not finite, a constant factor, a code of one number where two are
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from diffrep.errors import UserError
from diffrep.probes.factors import is_discrete
from diffrep.probes.result import quiet

DCI = "dci-1"  # gradient boosted trees, impurity importances, fitted on one half and judged on the other
MIG = "mig-1"  # plug-in information of histograms: 20 bins of equal width
SAP = "sap-1"  # R^2 and balanced accuracy of thresholds, fitted on one half and judged on the other
TAD = "tad-1"  # one attribute for each value of a factor, captured from an AUROC of 0.75 on

BINS = 20  # of a histogram
CAPTURED, ALIKE = 0.75, 0.2  # Yeats et al. 2022: least AUROC; largest share of entropy that another factor may remove

Discrete = Sequence[bool] | None


class Dci(TypedDict):
    """Disentanglement, completeness and informativeness, with the importances they follow from."""

    disentanglement: float
    completeness: float
    informativeness: float
    informativeness_by_factor: list[float]
    importances: list[list[float]]
    examples: int
    protocol: str


class Gap(TypedDict):
    """Score of the best number minus that of the second best: mean over factors, and of each."""

    score: float
    by_factor: list[float]
    protocol: str


class Tad(TypedDict):
    """Total AUROC difference, how many attributes it sums over, and of how many."""

    score: float
    captured: int
    attributes: int
    protocol: str


@quiet
def dci(
    codes: np.ndarray,
    factors: np.ndarray,
    discrete: Discrete = None,
    most: int = 4000,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Dci:
    """Disentanglement, completeness, informativeness (Eastwood and Williams 2018), each 1 for an ideal code.

    R (d, k), "importances": how much of factor j gradient boosted trees read from number i, by the impurity that splits
    on i remove, each column with sum 1. With p over the factors in a row, and over the numbers in a column:
    disentanglement = sum_i rho_i (1 - H_k(p_i)), rho_i = sum_j R_ij / k (Section 2, D); completeness = mean_j (1 -
    H_d(p_j)) (C); H_n is entropy to base n. informativeness: mean over factors of the accuracy (discrete) or of R^2
    (continuous) on the half that was not fitted (I).

    Variants: the paper reads R from lasso or random forests and states I as a normalised error, where R^2 = 1 -
    NRMSE^2; Locatello et al. 2019 use boosted trees, as here. At most `most` examples, drawn by `seed`, are used.
    Invariant to the order of the numbers and to increasing maps of each. progress: called after each factor.
    """
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor  # a second to import

    codes, factors, kinds = _checked(codes, factors, discrete)
    fit, judge = _halves(len(codes), seed, most)
    importances, informed = np.zeros((codes.shape[1], factors.shape[1])), []
    for j, kind in enumerate(kinds):
        v = _target(factors[:, j], kind, fit)
        trees = (GradientBoostingClassifier if kind else GradientBoostingRegressor)(random_state=seed)
        trees.fit(codes[fit], v[fit])
        importances[:, j] = trees.feature_importances_
        informed.append(float(trees.score(codes[judge], v[judge])))
        progress(1)
    return {
        "disentanglement": float(_one_sidedness(importances) @ importances.sum(1) / importances.sum()),
        "completeness": float(_one_sidedness(importances.T).mean()),
        "informativeness": float(np.mean(informed)),
        "informativeness_by_factor": informed,
        "importances": importances.tolist(),
        "examples": len(fit) + len(judge),
        "protocol": DCI,
    }


@quiet
def mig(codes: np.ndarray, factors: np.ndarray, discrete: Discrete = None) -> Gap:
    """Mutual information gap: mean_j (I(z_a; v_j) - I(z_b; v_j)) / H(v_j) (Chen et al. 2018, Eq. 6), in [0, 1].

    a and b are the two numbers with the most information on factor j. Variant of Locatello et al. 2019: information
    between histograms, each number (and each continuous factor) in 20 bins of equal width between its smallest and its
    largest value; the paper integrates the true q(z|x). Histograms overrate independent pairs by about 361 / 2N nats.
    Invariant to order and to linear maps of each number, not to other increasing ones.
    """
    from sklearn.metrics import mutual_info_score

    codes, factors, kinds = _checked(codes, factors, discrete, numbers=2)
    z = [_binned(column) for column in codes.T]
    v = [_target(column, True) if kind else _binned(column) for column, kind in zip(factors.T, kinds, strict=True)]
    shares = np.array([[mutual_info_score(a, b) / mutual_info_score(b, b) for b in v] for a in z])
    return _gap(shares, MIG)


@quiet
def sap(codes: np.ndarray, factors: np.ndarray, discrete: Discrete = None, seed: int = 0) -> Gap:
    """Separated attribute predictability: mean_j (S_aj - S_bj) of the two best numbers (Kumar et al. 2018, Section 3).

    S is R^2 = cov(z, v)^2 / (var z var v) for a continuous factor; for a discrete one the balanced accuracy of
    thresholds on z: a tree with as many leaves as there are values, fitted on one half and judged on the other. An
    ideal code of c equally frequent values gives 1 - 1/c, since chance is 1/c; continuous factors give 1.
    Variant: Locatello et al. 2019 have a linear support vector machine in place of thresholds. Invariant to the order
    of the numbers; to increasing maps of each for discrete factors, to linear ones for continuous factors.
    """
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    codes, factors, kinds = _checked(codes, factors, discrete, numbers=2)
    fit, judge = _halves(len(codes), seed)
    scores = np.zeros((codes.shape[1], factors.shape[1]))
    for i, z in enumerate(codes.T):
        for j, kind in enumerate(kinds):
            v = _target(factors[:, j], kind, fit)
            if kind:
                tree = DecisionTreeClassifier(
                    max_leaf_nodes=len(np.unique(v)), class_weight="balanced", random_state=seed
                ).fit(z[fit, None], v[fit])
                judged = judge[np.isin(v[judge], v[fit])]
                scores[i, j] = balanced_accuracy_score(v[judged], tree.predict(z[judged, None]))
            elif np.ptp(z) > 0:
                scores[i, j] = np.corrcoef(z, v)[0, 1] ** 2
    return _gap(scores, SAP)


@quiet
def tad(codes: np.ndarray, factors: np.ndarray, discrete: Discrete = None) -> Tad:
    """Total AUROC difference: sum over captured attributes of best AUROC - next best number's (Yeats et al. 2022).

    An attribute is captured where some number predicts it with an AUROC of 0.75 or more, rising or falling; those whose
    entropy another factor's attribute reduces by more than a fifth are left out first. "captured" is how many remain.
    The paper's attributes are binary, as is a factor with two values; here a factor with more of them is one attribute
    for each value against the rest, a continuous one that of being above its median. Variant: the authors skip
    numbers that stay within a range of 0.2. Invariant to the order of the numbers and to monotone maps of each.
    """
    from scipy.stats import rankdata

    codes, factors, kinds = _checked(codes, factors, discrete, numbers=2)
    columns = [_attributes(v, kind) for v, kind in zip(factors.T, kinds, strict=True)]
    owner = np.repeat(np.arange(len(columns)), [column.shape[1] for column in columns])
    attributes = np.concatenate(columns, 1).astype(np.float64)
    positive = attributes.sum(0)
    above = rankdata(codes, axis=0).T @ attributes - positive * (positive + 1) / 2  # Mann-Whitney's U
    auroc = above / (positive * (len(codes) - positive))
    auroc = np.sort(np.maximum(auroc, 1 - auroc), 0)
    alike = np.where(owner[:, None] == owner, 0.0, _entropy_removed(attributes)).max(1)
    kept = (auroc[-1] >= CAPTURED) & (alike <= ALIKE)
    return {
        "score": float((auroc[-1] - auroc[-2])[kept].sum()),
        "captured": int(kept.sum()),
        "attributes": int((alike <= ALIKE).sum()),
        "protocol": TAD,
    }


def _checked(
    codes: ArrayLike, factors: ArrayLike, discrete: Discrete, numbers: int = 1
) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors, np.float64)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or len(codes) < 4 or not factors.shape[1]:
        raise UserError(
            f"expected codes (N, d) and factors (N, k) of the same 4 or more examples, got {codes.shape} and "
            f"{factors.shape}; give a row for each example."
        )
    if codes.shape[1] < numbers:
        raise UserError(
            f"expected a code of at least {numbers} numbers, since the best two are compared, got 1; leave this out."
        )
    if not (np.isfinite(codes).all() and np.isfinite(factors).all()):
        raise UserError("expected finite codes and factors, got NaN or infinity; leave those examples out.")
    still = np.flatnonzero(np.ptp(factors, 0) == 0)
    if len(still):
        raise UserError(f"factor {still[0]} has one value in all examples, so nothing can predict it; leave it out.")
    return codes, factors, [is_discrete(v) for v in factors.T] if discrete is None else list(discrete)


def _halves(n: int, seed: int, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Positions of two halves of at most `most` of n examples, drawn by the seed."""
    order = np.random.default_rng(seed).permutation(n)[:most]
    return order[: len(order) // 2], order[len(order) // 2 :]


def _target(factor: np.ndarray, discrete: bool, fit: np.ndarray | slice = slice(None)) -> np.ndarray:
    """A discrete factor as the index of its values, a continuous one as it is; it must change on `fit`."""
    if np.ptp(factor[fit]) == 0:
        raise UserError("a factor has one value in the half that is fitted; leave it out, or give more examples.")
    return np.unique(factor, return_inverse=True)[1] if discrete else factor


def _binned(values: np.ndarray) -> np.ndarray:
    """(N,) -> 0 to 19: bins of equal width between the smallest and the largest value."""
    low, high = values.min(), values.max()
    return np.zeros(len(values), int) if low == high else np.digitize(values, np.linspace(low, high, BINS + 1)[1:-1])


def _one_sidedness(weights: np.ndarray) -> np.ndarray:
    """(n, m) -> (n,) 1 - entropy of each row to base m: 1 where one entry has all, 0 where all have the same.

    A row of zeros counts as 0, and one with a single entry as 1.
    """
    m, total = weights.shape[1], weights.sum(1, keepdims=True)
    p = weights / np.where(total > 0, total, 1)
    logs = np.log(p, where=p > 0, out=np.zeros_like(p)) / np.log(max(m, 2))
    return np.where(total[:, 0] > 0, 1 + (p * logs).sum(1), 0.0)


def _gap(scores: np.ndarray, protocol: str) -> Gap:
    """(d, k) -> the mean over factors of best score minus second best, and by factor."""
    ordered = np.sort(scores, 0)
    gaps = ordered[-1] - ordered[-2]
    return {"score": float(gaps.mean()), "by_factor": gaps.tolist(), "protocol": protocol}


def _attributes(factor: np.ndarray, discrete: bool) -> np.ndarray:
    """(N,) -> (N, n) of booleans: one for two values, one for each of more, above the median for a quantity."""
    if not discrete:
        return ((factor > np.median(factor)) | (factor == factor.max()))[:, None]
    values = np.unique(factor)
    return factor[:, None] == (values[1:] if len(values) == 2 else values)


def _entropy_removed(attributes: np.ndarray) -> np.ndarray:
    """(N, n) of 0 and 1 -> (n, n): I(a; b) / H(a), the share of a's entropy that knowing b removes."""
    share = attributes.mean(0)
    both = attributes.T @ attributes / len(attributes)
    joint = np.stack([both, share[:, None] - both, share - both, 1 - share[:, None] - share + both])

    def entropy(p: np.ndarray) -> np.ndarray:
        p = np.clip(p, 1e-300, 1)
        return -(p * np.log(p)).sum(0)

    each = entropy(np.stack([share, 1 - share]))
    return (each[:, None] + each - entropy(joint)) / each[:, None]
