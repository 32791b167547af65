"""The loss of a denoiser that reads each number of x by itself: its mean is computed without a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffrep.denoising.grey_levels import Grid
from diffrep.shapes import Data, PerExample, Time, expand, sum_features

NODES, REACH = 129, 6.0  # of the integral over eps: points, and standard deviations on each side
CELLS = 128  # points of the integral over log-SNR
Moments = Callable[[Data, Tensor], tuple[Data, Data]]


class Alone:
    """c = 1/2 span |eps - eps_hat|^2 of x_hat = E[x | x_t], number by number; (B,) nats.

    c is a control variate of the diffusion loss: the errors of a trained network correlate with the errors of this
    denoiser, most of all at little noise. The mean of c over eps is a sum over the numbers of x of a function of their
    grey level and of log-SNR, tabulated here. An estimate subtracts c for each draw and adds its mean.

    moments: (x_t / alpha, sigma / alpha) -> mean and standard deviation of x, number by number. table: (groups, bins,
    CELLS), the mean over eps of the loss of one number, nats. group: the group of each number of x; None: its channel.
    span: the log-SNR at t = 0 less that at t = 1.
    """

    def __init__(self, moments: Moments, table: Tensor, group: Tensor | None, span: Tensor):
        self.moments, self.table, self.group, self.span = moments, table, group, span

    @classmethod
    def of(cls, moments: Moments, grid: Grid, prior: Tensor, group: Tensor | None, ends: Tensor) -> Alone | None:
        """From the posterior moments of each group in `prior`; None where several grey levels share a range of the
        grid.

        ends: (2,) log-SNR at t = 0 and at t = 1, the positions 0 and 1.
        """
        if grid.ranges != grid.bins:
            return None
        groups, device = torch.arange(len(prior), device=ends.device)[:, None], ends.device
        x = (2 * (torch.arange(grid.bins, device=device) + 0.5) / grid.bins - 1).expand(1, len(prior), grid.bins)
        eps = torch.linspace(-REACH, REACH, NODES, device=device)[:, None, None]
        density = torch.exp(-0.5 * eps**2)
        density = density / density.sum()
        rows = []
        for position in (torch.arange(CELLS, device=device) + 0.5) / CELLS:
            s = torch.exp(-0.5 * (ends[0] + (ends[1] - ends[0]) * position))
            mean, _ = grid.read(prior, groups, x + s * eps, s.reshape(1, 1, 1))
            rows.append((density * ((mean - x) / s) ** 2).sum(0))
        span = ends[0] - ends[1]
        return cls(moments, 0.5 * span * torch.stack(rows, -1), group, span)

    def loss(self, x: Data, y: Data, log_snr: Time) -> PerExample:
        """c of one draw y = x_t / alpha of each x; (B,) nats."""
        s = expand(torch.exp(-0.5 * log_snr), x)
        mean, _ = self.moments(y, s)
        return 0.5 * self.span * sum_features(((mean - x) / s) ** 2)

    def mean(self, x: Data, slopes: Tensor) -> PerExample:
        """The mean over eps and positions of slope c; slopes (S,) of S equal stretches of the axis; (B,) nats."""
        by_grey = (self.table * slopes.repeat_interleave(CELLS // len(slopes))).mean(-1)
        bins = by_grey.shape[1]
        grey = ((x + 1) * bins / 2 - 0.5).round().long().clamp(0, bins - 1)
        channel = torch.arange(x.shape[1], device=x.device).reshape(-1, *[1] * (x.ndim - 2))
        return sum_features(by_grey.flatten()[grey + bins * (channel if self.group is None else self.group)])
