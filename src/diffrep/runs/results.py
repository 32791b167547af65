"""Types of the files of results: every name in metrics.json, probes.json and so on.

Each file also holds `weights`, the digest of the weights that it is about (`runs.records`), and `options`: arguments of
its function that were not the defaults. Probes state theirs with each result, too; of a path there is its last part.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from diffrep.evaluation.bound import Summary
from diffrep.evaluation.layers import Readout
from diffrep.evaluation.times import Score
from diffrep.probes.disentanglement import Dci, Gap, Tad
from diffrep.probes.quality import Distances
from diffrep.probes.result import Result


class StatedBound(Summary):
    """A bound and the unit that it is in."""

    unit: str


class ChainBound(Summary):
    """The bound of a chain of so many steps."""

    steps: int
    protocol: str


class Denoising(TypedDict):
    """The diffusion loss at weight one, nats/dim; None where it was not measured."""

    with_code: float | None
    without_code: float | None


class FlowLikelihood(TypedDict):
    """-log p(x) along the probability flow."""

    bits_per_dim: float
    bits_per_dim_se: float
    bits_per_dim_by_steps: float
    examples: int
    steps: int
    dequantisation: str


class RefinedBound(TypedDict):
    """The bound with refined codes; gap_nats: by how much refining lowers it, for an example."""

    bits_per_dim: float
    bits_per_dim_se: float
    rate_nats: float
    gap_nats: float
    gap_nats_se: float
    examples: int
    steps: int
    protocol: str


class CodeProbes(TypedDict, total=False):
    """Accuracies of probes on codes; overlap: test examples that occur in training."""

    linear: float
    linear_se: float
    linear_protocol: Result
    knn: float
    knn_se: float
    knn_protocol: Result
    overlap: int


class Bounded(TypedDict):
    """The bound of a run; without one, the reason and the denoising loss."""

    bound: StatedBound | None
    levels: int  # for each example
    rate_nats: float | None
    active_units: int | None
    no_bound: NotRequired[str]
    denoising: NotRequired[Denoising | None]
    worse_than_even: NotRequired[str]  # a warning about a bound above log2(levels)
    bound_in_steps: NotRequired[ChainBound]


class Metrics(Bounded):
    """metrics.json, by `diffrep evaluate`. trained: the metadata of the weights (step, examples)."""

    method: str
    data: str
    shape: list[int]
    examples: int
    protocol: str
    parameters: int
    trained: dict[str, Any]
    flow: NotRequired[FlowLikelihood]
    refined: NotRequired[RefinedBound]
    no_refined: NotRequired[str]
    probes: CodeProbes
    no_probe: NotRequired[str]
    options: NotRequired[dict[str, Any]]


class Probes(TypedDict, total=False):
    """probes.json, by `diffrep probe`. scores: features ("code", "pixels", ...) -> protocol -> result.

    labels: name of the target. classes: None for numbers. class_names: by number. examples: those with a label, of each
    split. most_frequent: accuracy of always the most frequent class. notes: sentences for the user. dims: numbers of
    each kind of features. key: of weights, data, labels and t.
    """

    method: str
    data: str
    labels: str
    classes: int | None
    class_names: list[str] | None
    examples: dict[str, int]
    most_frequent: float | None
    overlap: int
    warning: str | None
    notes: list[str]
    t: float | None
    options: dict[str, Any]
    weights: str
    key: str
    dims: dict[str, int]
    scores: dict[str, dict[str, Result]]


class Between(TypedDict):
    """A lower and an upper bound, nats, and their standard errors."""

    lower: float
    lower_se: float
    upper: float
    upper_se: float
    upper_from: NotRequired[str]


class Curve(TypedDict):
    """Nats per unit of log-SNR, at each log-SNR, and the standard errors."""

    log_snr: list[float]
    nats_per_log_snr: list[float]
    se: list[float]


class CurveOfTime(Curve):
    """The curve of a time-conditioned code of one t."""

    t: float
    log_snr_of_code: float


class Carried(Curve):
    """Nats that the code carries over all noise levels, and at the start of the chain."""

    log_snr_ends: list[float]
    integral_nats: float
    integral_se: float
    start_nats: float
    start_se: float
    peak_log_snr: float
    active_units: int | None
    effective_rank: float | None  # RankMe


class RateUse(TypedDict):
    """The rate of the code and its use; all None, with the reason, where the rate is not finite."""

    rate_nats: float | None
    used_share: float | None
    used_share_se: float | None
    excess_nats: float | None
    excess_se: float | None
    mutual_information: Between | None
    aggregate_gap: Between | None
    no_rate: NotRequired[str]


class ProfileFile(Carried, RateUse):
    """profile.json, by `diffrep profile`."""

    method: str
    data: str
    examples: int
    levels: int
    protocol: str
    over_times: NotRequired[list[CurveOfTime]]
    options: NotRequired[dict[str, Any]]


class DistanceFile(Distances):
    """distance.json, by `diffrep distance`; `..._floor` is of training examples in place of samples."""

    method: str
    data: str
    features: str
    protocol: str
    frechet_floor: float
    kid_floor: float
    kid_se_floor: float
    precision_floor: float
    recall_floor: float
    sampler: NotRequired[str]
    steps: NotRequired[int]
    spacing: NotRequired[str]
    seed: int
    options: NotRequired[dict[str, Any]]


class Disentangled(TypedDict):
    """disentangle.json, by `diffrep disentangle`. left_out: factor -> why it was not used."""

    method: str
    data: str
    examples: int
    dim: int
    factors: list[str]
    left_out: dict[str, str]
    mig: Gap
    sap: Gap
    tad: Tad
    dci: Dci
    uniformity: float
    alignment: float | None
    sphere_protocol: str
    options: NotRequired[dict[str, Any]]


class ReadoutFile(Readout):
    """readout.json, by `diffrep readout`."""

    method: str
    data: str
    options: NotRequired[dict[str, Any]]


class OneTime(TypedDict):
    """Two probes on the code of one t."""

    t: float
    linear: Score
    mlp: Score


class ManyTimes(Score):
    """A probe on the codes of k times, combined in one way; reader: mlp, linear, or the way's own network."""

    k: int
    way: str
    reader: str


class BestTime(Score):
    """The t that is best on validation."""

    t: float


class TimesFile(TypedDict):
    """times.json, by `diffrep times`."""

    method: str
    data: str
    examples: int
    train_examples: int
    epochs: int
    seeds: int
    protocol: str
    single: list[OneTime]
    combined: list[ManyTimes]
    best_single: BestTime
    best_combined: ManyTimes
    options: NotRequired[dict[str, Any]]


class FewLabels(TypedDict):
    """Mean accuracy over draws of the labels, its standard error, and the accuracy for each draw."""

    accuracy: float
    se: float
    draws: list[float]


class SemiFile(TypedDict):
    """semi.json, by `diffrep semi`."""

    method: str
    data: str
    labels_per_class: int
    seeds: int
    steps: int
    examples: int
    unlabelled_examples: int
    protocol: list[str]
    frozen: FewLabels
    random: FewLabels
    finetuned: FewLabels
    pseudo: FewLabels
    options: NotRequired[dict[str, Any]]
