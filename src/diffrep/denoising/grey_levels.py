"""Posterior moments of one number of x given its noisy value and a histogram of grey levels: exact, tabulated."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from diffrep.shapes import Data


def shares(counts: Tensor, ranges: int) -> Tensor:
    """(G, bins) counts -> (G, ranges) probabilities, float64; all ranges share one thousandth equally, and everything
    where nothing is counted."""
    bins = counts.shape[1]
    range_of = (torch.arange(bins) * ranges // bins).expand(len(counts), bins)
    folded = torch.zeros(len(counts), ranges, dtype=torch.float64).scatter_add(1, range_of, counts.double().cpu())
    folded += folded.sum(1, keepdim=True) == 0
    return 0.999 * folded / folded.sum(1, keepdim=True) + 0.001 / ranges


def grey_of(x: Data, bins: int) -> Tensor:
    """The grey level of each number of x in [-1, 1], int64."""
    return ((x + 1) * bins / 2 - 0.5).round().long().clamp(0, bins - 1)


class Bilinear(torch.autograd.Function):
    """(1 - r) ((1 - c) f_0 + c f_1) + r ((1 - c) f_2 + c f_3) of four rows f of a table, with gradients of r and c.

    table (T, n); corners (M, 4): the rows; r, c (M,) -> (M, n). One pass over memory: as indexing and `lerp` it took 12
    times as long, and so did its gradient with the one that PyTorch has.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, corners: Tensor, r: Tensor, c: Tensor) -> Tensor:
        ctx.save_for_backward(table, corners, r, c)
        weights = torch.stack([(1 - r) * (1 - c), (1 - r) * c, r * (1 - c), r * c], -1)
        return functional.embedding_bag(corners, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor, Tensor]:
        table, corners, r, c = ctx.saved_tensors
        f = (table.index_select(0, corner) for corner in corners.unbind(-1))
        f_0, f_1, f_2, f_3 = ((gradients[0] * row).sum(-1) for row in f)
        return None, None, torch.lerp(f_2 - f_0, f_3 - f_1, c), torch.lerp(f_1 - f_0, f_3 - f_2, r)


class Grid:
    """Mean and standard deviation of x given y = x + s noise, tabulated over y and log s, for histograms of `bins`.

    It is read by bilinear interpolation. More than 512 grey levels are tabulated in 512 ranges of neighbours. For noise
    narrower than a range, the grey levels count as equally likely (`lattice`), which they nearly are within a range.
    """

    rows, columns = 96, 2048

    def __init__(self, bins: int):
        self.bins, self.ranges = bins, min(bins, 512)
        self.exact = self.ranges == bins  # each grey level is its own range
        self.log_low, self.log_high = math.log(0.1 * 2 / self.ranges), math.log(60.0)
        self.shape = (self.rows, self.columns, 2)

    def table(self, prior: Tensor) -> Tensor:
        """(G, ranges) probabilities, float64 -> (G, rows, columns, 2) posterior means and standard deviations."""
        return self._tabulated(prior)[..., :2].contiguous()

    def mixture_table(self, prior: Tensor) -> Tensor:
        """(K, G, ranges) probabilities of K classes -> (G, rows, columns, 3 K): means, standard deviations and log
        p(y), up to a term that the classes share. All numbers of one place are read at once."""
        table = self._tabulated(prior.flatten(0, 1)).unflatten(0, prior.shape[:2])
        table[..., 2] -= table[..., 2].mean(0, keepdim=True)  # sums over many numbers stay small
        return table.permute(1, 2, 3, 4, 0).flatten(3)

    def _tabulated(self, prior: Tensor) -> Tensor:
        """(G, ranges) -> (G, rows, columns, 3): mean, standard deviation, and log of sum_k p(k) u_k.

        p(k | y) ~ p(k) exp(-(y - x_k)^2 / 2 s^2) = p(k) u_k: one exponential serves all histograms. u sums to one.
        """
        prior = prior.cpu()
        centre = (torch.arange(self.ranges, dtype=torch.float64) * 2 + 1) / self.ranges - 1
        weighted = torch.cat([prior, prior * centre, prior * centre**2]).T.contiguous()
        unit = torch.linspace(-1, 1, self.columns, dtype=torch.float64)
        table = torch.empty(len(prior), self.rows, self.columns, 3)
        for i, log_s in enumerate(torch.linspace(self.log_low, self.log_high, self.rows, dtype=torch.float64)):
            s = log_s.exp()
            energy = -0.5 * (((unit * (1 + 5 * s))[:, None] - centre) / s) ** 2
            mass, first, second = (torch.softmax(energy, 1) @ weighted).T.chunk(3)
            mean = first / mass
            std = (second / mass - mean**2).clamp(min=0).sqrt()
            table[:, i] = torch.stack([mean, std, mass.log()], -1).float()
        return table

    def read(self, table: Tensor, group: Tensor, y: Data, s: Tensor) -> tuple[Data, Data]:
        """Mean and std at y (B, *shape) and s; group: the histogram of each number."""
        mean, std = self.interpolated(table, group, y, s).unbind(-1)
        return self._within_ranges(mean, std, y, s)

    def read_mixture(self, table: Tensor, group: Tensor, y: Data, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each of K classes: mean, std and log p(y) up to a common term, (B, *shape, K) each.

        Beyond the last row, log p(y) falls as 1 / s: to first order it is y E[x] / s^2, and y is read in units of s.
        """
        mean, std, log_p = self.interpolated(table, group, y, s).chunk(3, -1)
        log_p = log_p * (math.exp(self.log_high) / s).clamp(max=1)[..., None]
        return *self._within_ranges(mean, std, y[..., None], s[..., None]), log_p

    def interpolated(self, table: Tensor, group: Tensor, y: Data, s: Tensor) -> Tensor:
        """The n numbers of a table at y and s, (B, *shape, n), by bilinear interpolation of four corners."""
        row = ((s.log() - self.log_low) / (self.log_high - self.log_low)).clamp(0, 1) * (self.rows - 1)
        column = ((y / (1 + 5 * s) + 1) / 2).clamp(0, 1) * (self.columns - 1)
        r0, c0 = (at.detach().nan_to_num().floor() for at in (row, column))  # what is nan stays nan, and has a place
        r0, c0 = r0.clamp(max=self.rows - 2), c0.clamp(max=self.columns - 2)
        at = (group * self.rows + r0.long()) * self.columns + c0.long()
        (dr, dc), flat = torch.broadcast_tensors(row - r0, column - c0), table.reshape(-1, table.shape[-1])
        corners = torch.stack([at, at + 1, at + self.columns, at + self.columns + 1], -1)
        numbers = Bilinear.apply(flat, corners.reshape(-1, 4), dr.reshape(-1), dc.reshape(-1))
        return numbers.reshape(*at.shape, table.shape[-1])

    def _within_ranges(self, mean: Tensor, std: Tensor, y: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std where a range holds several grey levels and the noise is narrower than it."""
        if self.exact:
            return mean, std
        wide = (s * self.ranges / 2).log2().clamp(0, 1)  # 0 for noise narrower than a range, 1 from two ranges on
        fine_mean, fine_std = lattice(y, s, self.bins)
        return torch.lerp(fine_mean, mean, wide), torch.lerp(fine_std, std, wide)


def lattice(y: Data, s: Tensor, bins: int) -> tuple[Data, Data]:
    """Mean and standard deviation of x given y = x + s noise where all `bins` grey levels are equally likely.

    Let r = s in units of a grey level. For r > 0.7 they are y and s to a thousandth of a grey level (Poisson's
    summation: the error is of the order exp(-2 pi^2 r^2)); for smaller r the sum runs over the seven grey levels around
    y. A y outside of the grey levels is moved to the nearest.
    """
    step = 2 / bins
    y = y.clamp(-1 + step / 2, 1 - step / 2)
    place = (y + 1) / step - 0.5
    nearest = place.round()
    narrow = (s / step).clamp(1e-3, 0.7)
    offset = torch.arange(-3, 4, device=y.device, dtype=y.dtype)
    gap = nearest[..., None] + offset - place[..., None]  # of the seven grey levels to y, in grey levels
    weight = torch.softmax(-0.5 * (gap / narrow[..., None]) ** 2, -1)
    mean = (weight * gap).sum(-1)
    std = ((weight * (gap - mean[..., None]) ** 2).sum(-1)).sqrt()
    is_wide = s > 0.7 * step
    return torch.where(is_wide, y, y + step * mean), torch.where(is_wide, s, step * std)
