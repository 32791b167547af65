"""Level of detail: where on the noise axis a loss looks, and where its times are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.denoising.noise import Noise
from diffrep.shapes import Draws, Time

FINE = 0.5  # log-SNR at which a number of standard deviation about 1/2 begins to show by itself

Density = Callable[[Noise, Time], Tensor]  # a non-negative function of t; its scale matters only for `likelihood`


def uniform(noise: Noise, t: Time) -> Tensor:
    """Every t alike: log-uniform sigma under VE, which in DRL finds stroke width and background."""
    return torch.ones_like(t)


def likelihood(noise: Noise, t: Time) -> Tensor:
    """-d log_snr / dt: with the factor 1/2 of the eps loss this is the bound, in nats (VDM, Eq. 17)."""
    return -noise.log_snr_slope(t)


def high_noise(noise: Noise, t: Time) -> Tensor:
    """d(sigma/alpha)/dt: uniform sigma under VE, which in DRL finds the class of a digit."""
    return -noise.log_snr_slope(t) * (-0.5 * noise.log_snr(t)).clamp(max=10).exp()


def low_noise(noise: Noise, t: Time) -> Tensor:
    """-d log_snr / dt, faded out above sigma = alpha: fine detail."""
    return -noise.log_snr_slope(t) * torch.sigmoid(noise.log_snr(t))


def semantic(noise: Noise, t: Time) -> Tensor:
    """(1 / (1 + SNR))^0.9 (SNR / (1 + SNR))^0.1: less of pure noise, and hardly fine detail (PDAE, Section 3.4)."""
    log_snr = noise.log_snr(t)
    return (0.9 * F.logsigmoid(-log_snr) + 0.1 * F.logsigmoid(log_snr)).exp()


def band(low: float, high: float) -> Density:
    """Uniform in log-SNR between two values, nothing elsewhere."""
    if not low < high:
        raise ValueError(f"band expects low < high, both log-SNR; got {low} and {high}")

    def density(noise: Noise, t: Time) -> Tensor:
        log_snr = noise.log_snr(t)
        return -noise.log_snr_slope(t) * ((log_snr >= low) & (log_snr <= high))

    return density


def bump(centre: float, width: float) -> Density:
    """A smooth hill in log-SNR, the same under every process: the likelihood's weight times 1 / cosh^2(u / 2).

    u = (log_snr - centre) / width, a logistic density scaled to 1 at its centre: there a nat counts as in the bound,
    and a tenth as much 3.6 widths away. The measure of the whole axis is 4 width.
    """

    def density(noise: Noise, t: Time) -> Tensor:
        u = (noise.log_snr(t) - centre) / width
        return -noise.log_snr_slope(t) * 4 * torch.sigmoid(u) * torch.sigmoid(-u)

    return density


def coarse(dims: int) -> Density:
    """What shows first of an example of `dims` numbers: its class. Width 1, centre -3 for 768 numbers.

    A shape that fills the picture is seen once its energy, which grows with dims, exceeds the noise of one number: each
    factor of e in dims moves the centre down by one, as noise moves with resolution in Hoogeboom et al. 2023.
    """
    return bump(_first(dims), 1.0)


def balanced(dims: int) -> Density:
    """From coarse to fine: width 2.5, the centre midway."""
    return bump((_first(dims) + FINE) / 2, 2.5)


def fine(dims: int) -> Density:
    """What one number, or a few, show: a tint, an edge. Width 1, centre 1/2, whatever dims is."""
    return bump(FINE, 1.0)


def share(taught: Density, looks: Density) -> Density:
    """taught / looks: the part of a loss with the measure `looks` that has the measure `taught`; no gradient."""

    def density(noise: Noise, t: Time) -> Tensor:
        with torch.no_grad():
            return taught(noise, t) / looks(noise, t).clamp(min=1e-12)

    return density


def _first(dims: int) -> float:
    return -3.0 - math.log(dims / 768)


class Levels(nn.Module):
    """The measure over noise levels that a loss integrates against, and the density that its times are drawn from.

    looks: the measure (the weight w(t) of DRL and its p(t) are the same thing here). draws: a density for t; any gives
    the same expectation, because each example is weighted by looks / draws. `Levels(d)` weights uniform times;
    `Levels(d, draws=d)` draws by d, and the weights are constant. steps: t on the grid i / steps (finite T), else None.
    """

    cells = 4096

    def __init__(self, looks: Density = uniform, draws: Density = uniform, steps: int | None = None):
        super().__init__()
        if steps is not None and draws is not uniform:
            raise ValueError("a finite chain draws its steps uniformly: each belongs to the bound once")
        self.looks, self.draws, self.steps = looks, draws, steps

    def draw(self, noise: Noise, draws: Draws, batch: int) -> Time:
        """(batch,) low-discrepancy times with density `draws`."""
        u = draws.stratified(batch)
        t = u if self.draws is uniform else self._quantile(noise, u)
        return t if self.steps is None else (t * self.steps).floor().clamp(max=self.steps - 1).add(1) / self.steps

    def weight(self, noise: Noise, t: Time) -> Tensor:
        """(B,) looks / draws at t, the factor of each example's loss."""
        looked = self.looks(noise, t)
        if self.draws is uniform:
            return looked
        mass = self._mass(noise, t.device)
        drawn = self.draws(noise, t) / mass.mean()
        return looked / drawn.clamp(min=1e-12)

    def advance(self) -> None:
        """A training step is done: a measure that changes moves on."""
        getattr(self.looks, "advance", lambda: None)()

    def _quantile(self, noise: Noise, u: Time) -> Time:
        """The inverse of the cumulative distribution of `draws`, piecewise linear over cells; no gradient."""
        mass = self._mass(noise, u.device)
        cumulative = torch.cumsum(mass.double(), 0)
        cumulative = cumulative / cumulative[-1]
        cell = torch.searchsorted(cumulative, u.double().contiguous()).clamp(max=self.cells - 1)
        before = torch.where(cell > 0, cumulative[cell - 1], torch.zeros_like(cumulative[cell]))
        inside = (u - before) / (cumulative[cell] - before).clamp(min=1e-30)
        return ((cell + inside.clamp(0, 1)) / self.cells).float()

    def _mass(self, noise: Noise, device: torch.device) -> Tensor:
        """(cells,) the density `draws`, not normalised, in the middle of each cell."""
        grid = (torch.arange(self.cells, device=device) + 0.5) / self.cells
        mass = self.draws(noise, grid).detach().float()
        if not (torch.isfinite(mass).all() and (mass >= 0).all() and mass.sum() > 0):
            raise ValueError("a level of detail must be finite, not negative, and positive somewhere in t in [0, 1]")
        return mass
