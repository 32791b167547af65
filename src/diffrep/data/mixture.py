"""Latent classes of examples: a mixture in which each class has its own histograms of grey levels."""

from __future__ import annotations

import torch
from torch import Tensor

from diffrep.data.examples import HISTOGRAM_EXAMPLES, Examples
from diffrep.data.places import GROUPS
from diffrep.shapes import Mixture, Shape

CLASSES = 8  # at most
HISTOGRAMS = 64  # classes times groups of places, at most: each has a table of posterior moments
EXAMPLES_EACH = 150  # training examples for each class, at least
LEVELS = 512  # of grey levels that are told apart, at most
SHARED = 20.0  # numbers with the histogram of all classes that are added to each histogram
STARTS, STEPS = 2, 20  # of EM


def latent_classes(shape: Shape, examples: int) -> int:
    """The number K of latent classes for so many training examples of a shape; 1: no mixture."""
    return max(1, min(CLASSES, HISTOGRAMS // (shape[0] * groups_of(shape, CLASSES)), examples // EXAMPLES_EACH))


def groups_of(shape: Shape, classes: int) -> int:
    """Groups of places of each channel. Classes of data of several channels have fewer, so that there is room."""
    return GROUPS if classes == 1 else max(1, GROUPS // shape[0])


def mixture(examples: Examples, classes: int, grouped: tuple[Tensor, Tensor] | None, seed: int = 0) -> Mixture | None:
    """A mixture of products of histograms, p(x) = sum_k weight_k prod_i p_k(x_i), fitted by EM; None: continuous data.

    The numbers x_i of a group of places share a histogram (latent class analysis; Lazarsfeld and Henry 1968). The
    better of two random starts is kept. Counted over at most 5,000 evenly spaced examples, in at most 512 ranges of
    grey levels. grouped: `places` in `groups_of` groups, whose histograms one class has. seed: of the starts.
    """
    if examples.bins is None or grouped is None:
        return None
    group, histograms = grouped
    if classes == 1:  # without the counts of each example, which are large for data of many channels
        return Mixture(group, torch.ones(1).double(), histograms[None])
    groups, bins = len(histograms), min(examples.bins, LEVELS)
    n = _counts_by_example(examples, group.flatten(), groups, bins)
    common = n.sum(0).reshape(groups, bins) / n.sum(0).reshape(groups, bins).sum(1, keepdim=True).clamp(min=1)
    random = torch.Generator().manual_seed(seed)
    fits = [_em(n, common, classes, random) for _ in range(STARTS)]
    _, weights, counts = max(fits, key=lambda fit: fit[0])
    return Mixture(group, weights.double(), counts.double())


def _em(n: Tensor, common: Tensor, classes: int, random: torch.Generator) -> tuple[float, Tensor, Tensor]:
    """n (N, G * bins) counts of each example -> mean log likelihood, weights (K,), and counts (K, G, bins)."""
    r = torch.rand(len(n), classes, generator=random) ** 3
    r = r / r.sum(1, keepdim=True)
    for _ in range(STEPS):
        weights = (r.sum(0) + 1) / (len(n) + classes)
        counts = (r.T @ n).reshape(classes, *common.shape) + SHARED * common
        p = 0.999 * counts / counts.sum(2, keepdim=True).clamp(min=1e-6) + 0.001 / common.shape[1]
        log_joint = n @ p.log().flatten(1).T + weights.log()
        r = log_joint.softmax(1)
    return float(log_joint.logsumexp(1).mean()), weights, counts


def _counts_by_example(examples: Examples, group: Tensor, groups: int, cells: int) -> Tensor:
    """(N, groups * cells) float32: how often the numbers of each group fall into each of `cells` equal ranges of grey
    levels, example by example."""
    assert examples.bins is not None
    rows = []
    for chunk in examples.evenly(HISTOGRAM_EXAMPLES).split(500):
        at = examples.store.raw(chunk).cpu().long().flatten(1) * cells // examples.bins + cells * group
        rows.append(torch.zeros(len(at), groups * cells).scatter_add_(1, at, torch.ones(at.shape)))
    return torch.cat(rows)
