"""Posterior moments of one number of x given its noisy value and a histogram of grey levels: exact, tabulated."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffrep.shapes import Data


def shares(counts: Tensor, ranges: int) -> Tensor:
    """(G, bins) counts -> (G, ranges) probabilities, float64; all ranges share one thousandth equally."""
    bins = counts.shape[1]
    range_of = (torch.arange(bins) * ranges // bins).expand(len(counts), bins)
    folded = torch.zeros(len(counts), ranges, dtype=torch.float64).scatter_add(1, range_of, counts.double().cpu())
    return 0.999 * folded / folded.sum(1, keepdim=True) + 0.001 / ranges


class Grid:
    """Mean and standard deviation of x given y = x + s noise, tabulated over y and log s, for histograms of `bins`.

    It is read by bilinear interpolation. More than 512 grey levels are tabulated in 512 ranges of neighbours. For noise
    narrower than a range, the grey levels count as equally likely (`lattice`), which they nearly are within a range.
    """

    rows, columns = 96, 2048

    def __init__(self, bins: int):
        self.bins, self.ranges = bins, min(bins, 512)
        self.log_low, self.log_high = math.log(0.1 * 2 / self.ranges), math.log(60.0)
        self.shape = (self.rows, self.columns, 2)

    def table(self, prior: Tensor) -> Tensor:
        """(G, ranges) probabilities, float64 -> (G, rows, columns, 2) posterior means and standard deviations.

        p(k | y) ~ p(k) exp(-(y - x_k)^2 / 2 s^2): one exponential serves all histograms.
        """
        prior = prior.cpu()
        centre = (torch.arange(self.ranges, dtype=torch.float64) * 2 + 1) / self.ranges - 1
        weighted = torch.cat([prior, prior * centre, prior * centre**2]).T.contiguous()
        unit = torch.linspace(-1, 1, self.columns, dtype=torch.float64)
        table = torch.empty(len(prior), *self.shape)
        for i, log_s in enumerate(torch.linspace(self.log_low, self.log_high, self.rows, dtype=torch.float64)):
            s = log_s.exp()
            energy = -0.5 * (((unit * (1 + 5 * s))[:, None] - centre) / s) ** 2
            mass, first, second = (torch.softmax(energy, 1) @ weighted).T.chunk(3)
            mean = first / mass
            table[:, i] = torch.stack([mean, (second / mass - mean**2).clamp(min=0).sqrt()], -1).float()
        return table

    def read(self, table: Tensor, group: Tensor, y: Data, s: Tensor) -> tuple[Data, Data]:
        """Mean and std at y (B, *shape) and s, by bilinear interpolation; group: the histogram of each number."""
        row = ((s.log() - self.log_low) / (self.log_high - self.log_low)).clamp(0, 1) * (self.rows - 1)
        column = ((y / (1 + 5 * s) + 1) / 2).clamp(0, 1) * (self.columns - 1)
        r0, c0 = row.detach().floor().clamp(max=self.rows - 2), column.detach().floor().clamp(max=self.columns - 2)
        dr, dc = (row - r0)[..., None], (column - c0)[..., None]
        at = (group * self.rows + r0.long()) * self.columns + c0.long()
        flat = table.reshape(-1, 2)
        near = torch.lerp(flat[at], flat[at + 1], dc)
        far = torch.lerp(flat[at + self.columns], flat[at + self.columns + 1], dc)
        mean, std = torch.lerp(near, far, dr).unbind(-1)
        if self.ranges == self.bins:
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
