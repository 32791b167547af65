"""What one number of x is, given its noisy value and the grey levels that it may have: exact moments, tabulated."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffrep.shapes import Data


def shares(counts: Tensor, levels: int) -> Tensor:
    """(G, bins) counts -> (G, levels) probabilities, float64; one in a thousand is spread over all levels."""
    bins = counts.shape[1]
    level = (torch.arange(bins) * levels // bins).expand(len(counts), bins)
    folded = torch.zeros(len(counts), levels, dtype=torch.float64).scatter_add(1, level, counts.double().cpu())
    return 0.999 * folded / folded.sum(1, keepdim=True) + 0.001 / levels


class Grid:
    """Mean and standard deviation of x given y = x + s noise, tabulated over y and log s, for histograms of `bins`.

    Read by bilinear interpolation. More than 512 levels are tabulated in 512 ranges of neighbours; noise that is
    narrower than a range meets levels that are equally likely (`lattice`), as they nearly are inside of a range.
    """

    rows, columns = 96, 2048

    def __init__(self, bins: int):
        self.bins, self.levels = bins, min(bins, 512)
        self.log_low, self.log_high = math.log(0.1 * 2 / self.levels), math.log(60.0)
        self.shape = (self.rows, self.columns, 2)

    def table(self, prior: Tensor) -> Tensor:
        """(G, levels) probabilities, float64 -> (G, rows, columns, 2) posterior means and standard deviations.

        p(k | y) ~ p(k) exp(-(y - x_k)^2 / 2 s^2): one exponential serves all histograms.
        """
        prior = prior.cpu()
        centre = (torch.arange(self.levels, dtype=torch.float64) * 2 + 1) / self.levels - 1
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
        at = ((group * self.rows + r0.long()) * self.columns + c0.long()).flatten()
        flat = table.reshape(-1, 2)

        def read(offset: int) -> Tensor:
            return flat[at + offset].reshape(*y.shape, 2)

        near = torch.lerp(read(0), read(1), dc)
        far = torch.lerp(read(self.columns), read(self.columns + 1), dc)
        mean, std = torch.lerp(near, far, dr).unbind(-1)
        if self.levels == self.bins:
            return mean, std
        wide = (s * self.levels / 2).log2().clamp(0, 1)  # 0 for noise narrower than a range, 1 from two ranges on
        fine_mean, fine_std = lattice(y, s, self.bins)
        return torch.lerp(fine_mean, mean, wide), torch.lerp(fine_std, std, wide)


def lattice(y: Data, s: Tensor, bins: int) -> tuple[Data, Data]:
    """Mean and standard deviation of x given y = x + s noise where all `bins` levels are equally likely.

    For noise of r levels, r > 0.7, they are y and s to a thousandth of a level (Poisson's summation: the error is of
    the order exp(-2 pi^2 r^2)); for narrower noise the seven levels around y are summed. y outside of the levels is
    moved to the nearest.
    """
    step = 2 / bins
    y = y.clamp(-1 + step / 2, 1 - step / 2)
    place = (y + 1) / step - 0.5
    nearest = place.round()
    narrow = (s / step).clamp(1e-3, 0.7)
    offset = torch.arange(-3, 4, device=y.device, dtype=y.dtype)
    gap = nearest[..., None] + offset - place[..., None]  # of the seven levels to y, in levels
    weight = torch.softmax(-0.5 * (gap / narrow[..., None]) ** 2, -1)
    mean = (weight * gap).sum(-1)
    std = ((weight * (gap - mean[..., None]) ** 2).sum(-1)).sqrt()
    is_wide = s > 0.7 * step
    return torch.where(is_wide, y, y + step * mean), torch.where(is_wide, s, step * std)
