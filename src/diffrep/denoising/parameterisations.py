"""What a network's output means: eps, x, v, the score, or a residual in units of what one number leaves open."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffrep.shapes import Data

Finish = Callable[[Data], tuple[Data, Data]]  # network output -> (x, eps)


class Parameterisation(nn.Module, ABC):
    """(x_t, alpha, sigma) -> what the network sees beside x_t, and how its output becomes (x, eps).

    alpha and sigma come expanded to x_t's number of axes. `channels` times the data's channels are shown beside x_t.
    """

    channels: int = 0

    @abstractmethod
    def forward(self, x_t: Data, alpha: Tensor, sigma: Tensor) -> tuple[Data | None, Finish]: ...


class Eps(Parameterisation):
    """eps = output + x_t (the residual form of VDM, Appendix B), x_t in units of its own scale."""

    def forward(self, x_t, alpha, sigma):
        scale = (alpha**2 + sigma**2).sqrt()
        return None, lambda output: _both(None, output + x_t / scale, x_t, alpha, sigma)


class X(Parameterisation):
    """x = output."""

    def forward(self, x_t, alpha, sigma):
        return None, lambda output: _both(output, None, x_t, alpha, sigma)


class V(Parameterisation):
    """v = alpha eps - sigma x = output (Salimans and Ho 2022); alpha and sigma over their root sum of squares."""

    def forward(self, x_t, alpha, sigma):
        scale = (alpha**2 + sigma**2).sqrt()
        a, s, x = alpha / scale, sigma / scale, x_t / scale

        def finish(output: Data) -> tuple[Data, Data]:
            return a * x - s * output, s * x + a * output

        return None, finish


class Score(Parameterisation):
    """sigma score = output, the scaling of score networks (Song et al. 2021, Appendix B): eps = -output."""

    def forward(self, x_t, alpha, sigma):
        return None, lambda output: _both(None, -output, x_t, alpha, sigma)


class EDM(Parameterisation):
    """x = E[x | x_t] + std[x | x_t] output under x ~ N(0, sd^2) (Karras et al. 2022, Eq. 7 and Table 1)."""

    def __init__(self, sd: float = 0.5):
        super().__init__()
        self.sd = sd

    def forward(self, x_t, alpha, sigma):
        power = alpha**2 * self.sd**2 + sigma**2
        mean, std = alpha * self.sd**2 / power * x_t, sigma * self.sd / power.sqrt()
        return None, lambda output: _both(mean + std * output, None, x_t, alpha, sigma)


class Marginal(Parameterisation):
    """x = E[x | x_t] + std[x | x_t] output, each number of x seen alone under the grey-level histogram of the data.

    EDM's preconditioning is the case of a Gaussian histogram. Pixels take few values and often the same one (the
    background of MNIST is 81 % of it); the exact posterior of one pixel given its own noisy value knows all that,
    so the network learns only what a pixel has to do with its neighbours. Where one pixel's noisy value already tells
    its level, std vanishes and with it the network's error. The network sees mean and std beside x_t.

    Both moments are tabulated over y = x_t / alpha and log(sigma / alpha) and read by bilinear interpolation. More than
    512 levels are tabulated in 512 groups of neighbours; noise that is narrower than a group meets levels that are
    equally likely (`lattice`), as they nearly are inside of a group.
    histogram: (C, bins) counts; None leaves the table empty, to be loaded.
    """

    channels = 2
    rows, columns = 96, 2048
    table: Tensor

    def __init__(self, data_channels: int, bins: int, histogram: Tensor | None = None):
        super().__init__()
        self.bins, self.groups = bins, min(bins, 512)
        width = 2 / self.groups
        self.log_low, self.log_high = math.log(0.1 * width), math.log(60.0)
        self.register_buffer("table", torch.zeros(data_channels, self.rows, self.columns, 2))
        if histogram is not None:
            self.table.copy_(self._moments(histogram.double()))

    def forward(self, x_t, alpha, sigma):
        mean, std = self.moments(x_t / alpha, sigma / alpha)
        extra = torch.cat([mean, std], 1)
        return extra, lambda output: _both(mean + std * output, None, x_t, alpha, sigma)

    def moments(self, y: Data, s: Tensor) -> tuple[Data, Data]:
        """Mean and standard deviation of x given y = x + s noise, number by number; y (B, C, ...), s broadcasts."""
        row = ((s.log() - self.log_low) / (self.log_high - self.log_low)).clamp(0, 1) * (self.rows - 1)
        column = ((y / (1 + 5 * s) + 1) / 2).clamp(0, 1) * (self.columns - 1)
        r0, c0 = row.detach().floor().clamp(max=self.rows - 2), column.detach().floor().clamp(max=self.columns - 2)
        dr, dc = (row - r0)[..., None], (column - c0)[..., None]
        channel = torch.arange(y.shape[1], device=y.device).reshape(1, -1, *[1] * (y.ndim - 2))
        at = ((channel * self.rows + r0.long()) * self.columns + c0.long()).flatten()
        flat = self.table.reshape(-1, 2)

        def read(offset: int) -> Tensor:
            return flat[at + offset].reshape(*y.shape, 2)

        near = torch.lerp(read(0), read(1), dc)
        far = torch.lerp(read(self.columns), read(self.columns + 1), dc)
        mean, std = torch.lerp(near, far, dr).unbind(-1)
        if self.groups == self.bins:
            return mean, std
        wide = (s * self.groups / 2).log2().clamp(0, 1)  # 0 for noise narrower than a group, 1 from two groups on
        fine_mean, fine_std = lattice(y, s, self.bins)
        return torch.lerp(fine_mean, mean, wide), torch.lerp(fine_std, std, wide)

    def _moments(self, histogram: Tensor) -> Tensor:
        """The posterior moments at every point of the table; one count in a thousand is spread over all levels."""
        channels, bins = histogram.shape
        levels = 2 * (torch.arange(bins, dtype=torch.float64) + 0.5) / bins - 1
        group = (torch.arange(bins) * self.groups // bins).expand(channels, bins)
        counts = torch.zeros(channels, self.groups, dtype=torch.float64).scatter_add(1, group, histogram.cpu())
        centre = torch.zeros(self.groups, dtype=torch.float64).scatter_reduce(
            0, group[0], levels, "mean", include_self=False
        )
        prior = counts / counts.sum(1, keepdim=True)
        log_prior = (0.999 * prior + 0.001 / self.groups).log()
        table = torch.empty(channels, self.rows, self.columns, 2)
        unit = torch.linspace(-1, 1, self.columns, dtype=torch.float64)
        for i, log_s in enumerate(torch.linspace(self.log_low, self.log_high, self.rows, dtype=torch.float64)):
            s = log_s.exp()
            distance = (unit * (1 + 5 * s))[:, None] - centre
            posterior = torch.softmax(log_prior[:, None] - 0.5 * (distance / s) ** 2, -1)
            mean = posterior @ centre
            variance = (posterior * (centre - mean[..., None]) ** 2).sum(-1)
            table[:, i] = torch.stack([mean, variance.sqrt()], -1).float()
        return table


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


def _both(x: Data | None, eps: Data | None, x_t: Data, alpha: Tensor, sigma: Tensor) -> tuple[Data, Data]:
    """The one of x and eps that is missing, from x_t = alpha x + sigma eps."""
    if x is None:
        assert eps is not None
        return (x_t - sigma * eps) / alpha, eps
    return x, (x_t - alpha * x) / sigma
