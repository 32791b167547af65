"""Level of detail: the weight of a loss at each noise level, and the density from which its times are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.denoising.noise import Noise
from diffrep.shapes import Draws, Shape, Time

FINE = 0.5  # log-SNR from which on one number, of standard deviation about 1/2, can be told from its noise

Density = Callable[[Noise, Time], Tensor]  # a non-negative function of t; its scale matters only for `likelihood`


def uniform(noise: Noise, t: Time) -> Tensor:
    """1 at every t: log-uniform sigma under VE, at which codes of DRL hold stroke width and background."""
    return torch.ones_like(t)


def likelihood(noise: Noise, t: Time) -> Tensor:
    """-d log_snr / dt: with the factor 1/2 of the eps loss this is the bound, in nats (VDM, Eq. 17)."""
    return -noise.log_snr_slope(t)


def high_noise(noise: Noise, t: Time) -> Tensor:
    """d(sigma/alpha)/dt: uniform sigma under VE, at which codes of DRL hold the class of a digit."""
    return -noise.log_snr_slope(t) * (-0.5 * noise.log_snr(t)).clamp(max=10).exp()


def low_noise(noise: Noise, t: Time) -> Tensor:
    """-d log_snr / dt times sigmoid(log_snr), which is small where sigma > alpha: fine detail."""
    return -noise.log_snr_slope(t) * torch.sigmoid(noise.log_snr(t))


def semantic(noise: Noise, t: Time) -> Tensor:
    """(1 / (1 + SNR))^0.9 (SNR / (1 + SNR))^0.1: little weight on pure noise and on fine detail (PDAE, Section 3.4)."""
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

    u = (log_snr - centre) / width. It is a logistic density scaled to 1 at its centre: there a nat has its weight in
    the bound, 3.6 widths away a tenth of that. Its integral over the axis is 4 width.
    """

    def density(noise: Noise, t: Time) -> Tensor:
        u = (noise.log_snr(t) - centre) / width
        return -noise.log_snr_slope(t) * 4 * torch.sigmoid(u) * torch.sigmoid(-u)

    return density


def coarse(dims: int) -> Density:
    """The noise levels at which the class of an example of `dims` numbers shows. Width 1, centre -3 for 768 numbers.

    A shape that fills the picture can be told from noise once its energy, which grows with dims, exceeds the noise of
    one number. So each factor of e in dims moves the centre down by one, as in Hoogeboom et al. 2023 for resolution.
    """
    return bump(_first(dims), 1.0)


def balanced(dims: int) -> Density:
    """The noise levels from coarse to fine: width 2.5, the centre midway."""
    return bump((_first(dims) + FINE) / 2, 2.5)


def fine(dims: int) -> Density:
    """The noise levels at which one number, or a few, show: a tint, an edge. Width 1, centre 1/2 for all dims."""
    return bump(FINE, 1.0)


def coarse_patch(shape: Shape) -> int:
    """The side, a power of two, of the largest patch whose mean has an SNR below 1 at the centre of `coarse`.

    The mean is over all channels; of p numbers that are alike it has p times the SNR of one (Hoogeboom et al. 2023,
    Section 3.1). So what is finer than this patch hardly shows where the loss is coarse. 4 for 28x28, with one channel
    or three, 1 for 8x8 and for vectors.
    """
    if len(shape) < 2:
        return 1
    numbers = math.exp(-_first(math.prod(shape[1:])))
    side = numbers ** (1 / (len(shape) - 1))
    return 2 ** max(0, math.floor(math.log2(side)))


def share(target: Density, measure: Density) -> Density:
    """target / measure: the factor that turns a loss of weight `measure` into one of weight `target`; no gradient."""

    def density(noise: Noise, t: Time) -> Tensor:
        with torch.no_grad():
            return target(noise, t) / measure(noise, t).clamp(min=1e-12)

    return density


def _first(dims: int) -> float:
    return -3.0 - math.log(dims / 768)


class Levels(nn.Module):
    """The weight of a loss over noise levels, and the density from which its times are drawn.

    measure: the weight, w(t) p(t) of DRL. proposal: the density of t; every proposal gives the same expectation,
    because each example has the weight measure / proposal. `Levels(d)` weights uniform times; `Levels(d, proposal=d)`
    draws times from d and has constant weights. steps: t lies on the grid i / steps (finite T); None: anywhere.
    """

    cells = 4096

    def __init__(self, measure: Density = uniform, proposal: Density = uniform, steps: int | None = None):
        super().__init__()
        if steps is not None and proposal is not uniform:
            raise ValueError("a finite chain draws its steps uniformly: each is in the bound once")
        self.looks, self.proposal, self.steps = measure, proposal, steps  # checkpoints hold the name looks

    def draw(self, noise: Noise, draws: Draws, batch: int) -> Time:
        """(batch,) low-discrepancy times with the density `proposal`."""
        u = draws.stratified(batch)
        t = u if self.proposal is uniform else self._quantile(noise, u)
        return t if self.steps is None else (t * self.steps).floor().clamp(max=self.steps - 1).add(1) / self.steps

    def weight(self, noise: Noise, t: Time) -> Tensor:
        """(B,) measure / proposal at t, the factor of each example's loss."""
        measure = self.looks(noise, t)
        if self.proposal is uniform:
            return measure
        mass = self._mass(noise, t.device)
        density = self.proposal(noise, t) / mass.mean()
        return measure / density.clamp(min=1e-12)

    def advance(self) -> None:
        """A training step is done: a measure that changes during training takes its step."""
        getattr(self.looks, "advance", lambda: None)()

    def _quantile(self, noise: Noise, u: Time) -> Time:
        """The inverse of the cumulative distribution of the proposal, piecewise linear over cells; no gradient."""
        mass = self._mass(noise, u.device)
        cumulative = torch.cumsum(mass.double(), 0)
        cumulative = cumulative / cumulative[-1]
        cell = torch.searchsorted(cumulative, u.double().contiguous()).clamp(max=self.cells - 1)
        before = torch.where(cell > 0, cumulative[cell - 1], torch.zeros_like(cumulative[cell]))
        inside = (u - before) / (cumulative[cell] - before).clamp(min=1e-30)
        return ((cell + inside.clamp(0, 1)) / self.cells).float()

    def _mass(self, noise: Noise, device: torch.device) -> Tensor:
        """(cells,) the density `proposal`, not normalised, in the middle of each cell."""
        grid = (torch.arange(self.cells, device=device) + 0.5) / self.cells
        mass = self.proposal(noise, grid).detach().float()
        if not (torch.isfinite(mass).all() and (mass >= 0).all() and mass.sum() > 0):
            raise ValueError("a level of detail must be finite, not negative, and positive somewhere in t in [0, 1]")
        return mass
