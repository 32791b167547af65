"""The loss of a denoiser that reads each number of x by itself: its mean is computed without a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffrep.denoising.grey_levels import Grid, grey_of
from diffrep.shapes import Data, PerExample, Time, expand, sum_features

NODES, REACH = 65, 6.0  # of the integral over eps: points, and standard deviations on each side
CELLS = 128  # points of the integral over log-SNR
Groups = Callable[[Data], Tensor]  # x (B, *shape) -> the histogram of each number, int64; it broadcasts to x


class Alone:
    """c = 1/2 span |eps - eps_hat|^2 of x_hat = E[x_i | y_i], number by number, with y = x_t / alpha; (B,) nats.

    c is a control variate of the diffusion loss: the errors of a trained network correlate with the errors of this
    denoiser. An estimate subtracts c for each draw and adds its mean over eps. That is a sum over the numbers of x of a
    function of their histogram, their grey level and log-SNR, tabulated here. Which histogram a number has may follow
    from all of the clean x, which the network does not have: for a given x it is fixed, so the mean stays exact.

    means: (G, rows, columns) the posterior means of G histograms on a grid. group: which of them a number of a clean x
    has. ends: (2,) log-SNR at t = 0 and at t = 1, the positions 0 and 1.
    """

    def __init__(self, grid: Grid, means: Tensor, group: Groups, ends: Tensor):
        means = means.contiguous()  # else each reading copies it
        self.grid, self.means, self.group, self.span = grid, means, group, ends[0] - ends[1]
        device, together = means.device, means.permute(1, 2, 0).contiguous()[None]  # all histograms are read at once
        x = (2 * (torch.arange(grid.bins, device=device) + 0.5) / grid.bins - 1)[:, None]
        eps = torch.linspace(-REACH, REACH, NODES, device=device)
        density = torch.exp(-0.5 * eps**2)
        density = density / density.sum()
        rows, first = [], torch.zeros((), dtype=torch.int64, device=device)
        for position in (torch.arange(CELLS, device=device) + 0.5) / CELLS:
            s = torch.exp(-0.5 * (ends[0] + (ends[1] - ends[0]) * position)).reshape(1, 1)
            mean = grid.interpolated(together, first, x + s * eps, s)  # (bins, NODES, G)
            rows.append(torch.einsum("xng,n->gx", ((mean - x[..., None]) / s[..., None]) ** 2, density))
        self.table = 0.5 * self.span * torch.stack(rows, -1)  # (G, bins, CELLS), nats of one number

    def loss(self, x: Data, y: Data, log_snr: Time) -> PerExample:
        """c of one draw y = x_t / alpha of each x; (B,) nats."""
        s = expand(torch.exp(-0.5 * log_snr), x)
        mean = self.grid.interpolated(self.means[..., None], self.group(x), y, s)[..., 0]
        return 0.5 * self.span * sum_features(((mean - x) / s) ** 2)

    def mean(self, x: Data, slopes: Tensor) -> PerExample:
        """The mean over eps and positions of slope c; slopes (S,) of S equal stretches of the axis; (B,) nats."""
        by_grey = (self.table * slopes.repeat_interleave(CELLS // len(slopes))).mean(-1)
        bins = by_grey.shape[1]
        return sum_features(by_grey.flatten()[grey_of(x, bins) + bins * self.group(x)])
