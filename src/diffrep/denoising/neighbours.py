"""Histograms of a number of x, given the mean of its neighbours."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, conv3d

from diffrep.denoising.alone import Alone
from diffrep.denoising.grey_levels import Grid, grey_of, shares
from diffrep.shapes import Data

RANGES = 32  # of the mean of the neighbours, equally wide


def by_neighbours(x: Data, bins: int, ends: Tensor) -> Alone | None:
    """The control variate with a histogram for each range of the mean of the neighbours, counted over x (N, *shape).

    At middle noise a network learns a number mostly from its neighbours. None: data without neighbours, or more grey
    levels than `Grid` tells apart. ends: as `Alone`.
    """
    grid = Grid(bins)
    if not 3 <= x.ndim <= 5 or x[0, 0].numel() < 2 or not grid.exact:
        return None
    ranges = partial(_ranges, bins=bins)
    at = (grey_of(x, bins) + bins * ranges(x)).flatten()
    counts = torch.zeros(RANGES * bins, device=x.device).scatter_add_(0, at, torch.ones(at.shape, device=x.device))
    means = grid.table(shares(counts.reshape(RANGES, bins), bins))[..., 0].to(x.device)
    return Alone(grid, means, ranges, ends)


def _ranges(x: Data, bins: int) -> Tensor:
    """(N, C, ...) -> the range of the mean of each number's neighbours in its channel, int64; two that touch at a
    corner are neighbours. Sums are of whole grey levels, so they are the same in any batch, rounded where a convolution
    is not exact."""
    grey = grey_of(x, bins).float()
    summed, ones = {3: conv1d, 4: conv2d, 5: conv3d}[x.ndim], x.new_ones(1, 1, *[3] * (x.ndim - 2))
    total, count = (
        summed(a.flatten(0, 1)[:, None], ones, padding=1).round().view_as(a) for a in (grey, torch.ones_like(x[:1]))
    )
    mean = (total - grey) / (count - 1)
    return ((mean + 0.5) * RANGES / bins).long()
