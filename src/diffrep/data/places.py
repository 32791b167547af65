"""Which numbers of an example have like grey levels: groups of places, and the histogram of each group."""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from diffrep.data.examples import HISTOGRAM_EXAMPLES, Examples

GROUPS = 8  # of each channel, at most
CELLS = 32  # of the cumulative histograms that are compared
BLEND = 0.01  # share of the channel's histogram in that of each group


def places(examples: Examples, groups: int = GROUPS) -> tuple[Tensor, Tensor] | None:
    """(*shape) the group of each number, int64, and (C * groups, bins) their histograms, float64; None: continuous.

    The places of a channel are grouped by k-means over their cumulative histograms: the squared distance of two is
    Cramer's, so that near grey levels count as alike. Each histogram is mixed with 1 % of that of its channel; an empty
    group has that of its channel. Counted over at most 5,000 evenly spaced examples.
    """
    if examples.bins is None:
        return None
    bins, channels, cells = examples.bins, examples.shape[0], min(CELLS, examples.bins)
    size = math.prod(examples.shape)
    fine = _counts(examples, torch.arange(size), size, cells)
    cumulative = (fine.cumsum(1) / fine.sum(1, keepdim=True)).reshape(channels, -1, cells).numpy()
    labels = np.stack([_grouped(of_channel, groups) + i * groups for i, of_channel in enumerate(cumulative)])
    group = torch.from_numpy(labels).reshape(examples.shape)
    counts = _counts(examples, group.flatten(), channels * groups, bins).reshape(channels, groups, bins)
    common = counts.sum(1, keepdim=True)
    own = counts / counts.sum(2, keepdim=True).clamp(min=1)
    blended = (1 - BLEND) * own + BLEND * common / common.sum(2, keepdim=True)
    return group, blended.flatten(0, 1)


def _grouped(cumulative: np.ndarray, groups: int) -> np.ndarray:
    """(places, cells) -> (places,) int64; as many groups as there are different rows, if those are fewer."""
    different = len(np.unique(cumulative, axis=0))
    return KMeans(min(groups, different), n_init=1, random_state=0).fit(cumulative).labels_.astype(np.int64)


def _counts(examples: Examples, group: Tensor, groups: int, cells: int) -> Tensor:
    """(groups, cells) float64: how often the numbers of each group fall into each of `cells` equal ranges of grey
    levels."""
    assert examples.bins is not None
    counts = torch.zeros(groups * cells, dtype=torch.int64)
    for chunk in examples.evenly(HISTOGRAM_EXAMPLES).split(500):
        ranges = examples.store.raw(chunk).cpu().long().flatten(1) * cells // examples.bins
        counts += torch.bincount((ranges + cells * group).flatten(), minlength=len(counts))
    return counts.reshape(groups, cells).double()
