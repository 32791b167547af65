"""The meaning of a network's output: eps, x, v, the score, or a residual of x in units of a posterior deviation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from diffrep.denoising.alone import Alone
from diffrep.denoising.grey_levels import Grid, grey_of, shares
from diffrep.denoising.observation import Observed, fuse
from diffrep.shapes import Data, Mixture, Shape, expand

AT_ONCE = 2**18  # numbers whose moments are computed together; a mixture takes a few hundred bytes for each
Finish = Callable[[Data], tuple[Data, Data]]  # network output -> (x, eps)


class Parameterisation(nn.Module, ABC):
    """(x_t, alpha, sigma) -> further input of the network, and a function from its output to (x, eps).

    alpha and sigma have as many axes as x_t. The further input has `channels` times the data's channels. observed: the
    estimate of x from the code, for a parameterisation that `fuses` it with x_t; None for all others.
    """

    channels: int = 0
    fuses: bool = False

    def alone(self, ends: Tensor) -> Alone | None:
        """The loss of posterior means of single numbers, between these log-SNRs; None where it is not tabulated."""
        return None

    @abstractmethod
    def forward(
        self, x_t: Data, alpha: Tensor, sigma: Tensor, observed: Observed | None = None
    ) -> tuple[Data | None, Finish]: ...


class Eps(Parameterisation):
    """eps = output + x_t (the residual form of VDM, Appendix B), x_t in units of its own scale."""

    def forward(
        self, x_t: Tensor, alpha: Tensor, sigma: Tensor, observed: Observed | None = None
    ) -> tuple[Tensor | None, Finish]:
        scale = (alpha**2 + sigma**2).sqrt()
        return None, lambda output: _both(None, output + x_t / scale, x_t, alpha, sigma)


class X(Parameterisation):
    """x = output."""

    def forward(
        self, x_t: Tensor, alpha: Tensor, sigma: Tensor, observed: Observed | None = None
    ) -> tuple[Tensor | None, Finish]:
        return None, lambda output: _both(output, None, x_t, alpha, sigma)


class V(Parameterisation):
    """v = alpha eps - sigma x = output (Salimans and Ho 2022); alpha and sigma over their root sum of squares."""

    def forward(
        self, x_t: Tensor, alpha: Tensor, sigma: Tensor, observed: Observed | None = None
    ) -> tuple[Tensor | None, Finish]:
        scale = (alpha**2 + sigma**2).sqrt()
        a, s, x = alpha / scale, sigma / scale, x_t / scale

        def finish(output: Data) -> tuple[Data, Data]:
            return a * x - s * output, s * x + a * output

        return None, finish


class Score(Parameterisation):
    """sigma score = output, the scaling of score networks (Song et al. 2021, Appendix B): eps = -output."""

    def forward(
        self, x_t: Tensor, alpha: Tensor, sigma: Tensor, observed: Observed | None = None
    ) -> tuple[Tensor | None, Finish]:
        return None, lambda output: _both(None, -output, x_t, alpha, sigma)


class Posterior(Parameterisation):
    """x = E[x | y] + std[x | y] output, of y = x_t / alpha = x + s eps with s = sigma / alpha, number by number.

    An estimate of x from the code is one more observation: y and s are then those of both observations together, and
    mean and std follow. A Gaussian prior of a number gives EDM; its histogram gives Marginal. shown: mean and std are
    further input of the network; they must be where the code gives an estimate.
    """

    fuses = True

    def __init__(self, shown: bool):
        super().__init__()
        self.channels = 2 if shown else 0

    @abstractmethod
    def moments(self, y: Data, s: Tensor) -> tuple[Data, Data]:
        """Mean and standard deviation of x given y = x + s noise, number by number; y (B, C, ...), s broadcasts."""

    def forward(
        self, x_t: Tensor, alpha: Tensor, sigma: Tensor, observed: Observed | None = None
    ) -> tuple[Tensor | None, Finish]:
        y, s = x_t / alpha, sigma / alpha
        mean, std = in_pieces(self.moments, *((y, s) if observed is None else fuse(y, s, observed)))
        extra = torch.cat([mean, std], 1) if self.channels else None
        return extra, lambda output: _both(mean + std * output, None, x_t, alpha, sigma)


def in_pieces(
    moments: Callable[[Data, Tensor], tuple[Data, Data]], y: Data, s: Tensor, at_once: int = AT_ONCE
) -> tuple[Data, Data]:
    """moments(y, s) of so few examples together that they have about `at_once` numbers, which limits the memory. A
    gradient computes each piece again."""
    examples = max(1, at_once // y[0].numel())
    if len(y) <= examples:
        return moments(y, s)
    pieces = zip(y.split(examples), s.expand(len(y), *s.shape[1:]).split(examples), strict=True)
    made = [checkpoint(moments, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
    return torch.cat([mean for mean, _ in made]), torch.cat([std for _, std in made])


class EDM(Posterior):
    """Each number x ~ N(0, sd^2): the preconditioning of Karras et al. 2022 (Eq. 7 and Table 1)."""

    def __init__(self, sd: float = 0.5, shown: bool = False):
        super().__init__(shown)
        self.sd = sd

    def moments(self, y: Data, s: Tensor) -> tuple[Data, Data]:
        share = self.sd**2 / (self.sd**2 + s**2)
        return share * y, (share.sqrt() * s).expand_as(y)


class Marginal(Posterior):
    """The prior of each number is the histogram of grey levels of the data.

    A Gaussian histogram gives EDM's preconditioning. Pixels take few values and often the same one (the background is
    81 % of MNIST). The exact posterior of a pixel given its own noisy value accounts for that, so the network learns
    only how a pixel depends on its neighbours. Where the noisy value of a pixel determines its grey level, std is 0 and
    so is the network's error.

    histogram: (C, bins) counts; None leaves the table empty, to be loaded.
    """

    table: Tensor

    def __init__(self, data_channels: int, bins: int, histogram: Tensor | None = None):
        super().__init__(shown=True)
        self.grid = Grid(bins)
        self.register_buffer("table", torch.zeros(data_channels, *self.grid.shape))
        if histogram is not None:
            self.table.copy_(self.grid.table(shares(histogram, self.grid.ranges)))

    def alone(self, ends: Tensor) -> Alone | None:
        return Alone(self.grid, self.table[..., 0], self._channels, ends) if self.grid.exact else None

    def moments(self, y: Data, s: Tensor) -> tuple[Data, Data]:
        return self.grid.read(self.table, self._channels(y), y, s)

    def _channels(self, y: Data) -> Tensor:
        return torch.arange(y.shape[1], device=y.device).reshape(-1, *[1] * (y.ndim - 2))


class MarginalByPlace(Posterior):
    """`Marginal` with one histogram for each group of places whose grey levels are alike.

    The middle of a digit and the margin around it have different grey levels. counted: (*shape) the group of each
    number, and the histograms (groups, bins); None leaves both empty, to be loaded. They are stored with the weights;
    the table, which is larger, is computed from them at its first use.
    """

    places: Tensor
    prior: Tensor

    def __init__(self, shape: Shape, bins: int, groups: int, counted: tuple[Tensor, Tensor] | None = None):
        super().__init__(shown=True)
        self.grid = Grid(bins)
        self.register_buffer("places", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("prior", torch.full((groups, self.grid.ranges), 1 / self.grid.ranges))
        self.table = Tabulated(self.grid.table)
        if counted is not None:
            self.places.copy_(counted[0])
            self.prior[: len(counted[1])] = shares(counted[1], self.grid.ranges).float()

    def alone(self, ends: Tensor) -> Alone | None:
        means = self.table(self.prior)[..., 0]
        return Alone(self.grid, means, lambda x: self.places, ends) if self.grid.exact else None

    def moments(self, y: Data, s: Tensor) -> tuple[Data, Data]:
        return self.grid.read(self.table(self.prior), self.places, y, s)


class MarginalMixture(Posterior):
    """`MarginalByPlace` for latent classes of examples, each with its own histograms: p(x) = sum_k w_k prod_i p_k(x_i).

    The strokes of one picture have one grey level, those of another picture another. p(k | y) ~ w_k prod_i p_k(y_i) is
    read from all numbers of y; the moments of each number are those of its mixture,
    mean = sum_k p(k | y) mean_k,  var = sum_k p(k | y) (std_k^2 + (mean_k - mean)^2).

    groups: of places; classes: K. mixed: the groups, weights and counts of `data.mixture`; None leaves all empty, to be
    loaded.
    """

    places: Tensor
    prior: Tensor
    weights: Tensor

    def __init__(self, shape: Shape, bins: int, groups: int, classes: int, mixed: Mixture | None = None):
        super().__init__(shown=True)
        self.grid = Grid(bins)
        self.register_buffer("places", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("prior", torch.full((classes, groups, self.grid.ranges), 1 / self.grid.ranges))
        self.register_buffer("weights", torch.full((classes,), 1 / classes))
        self.table = Tabulated(self.grid.mixture_table)
        if mixed is not None:
            self.places.copy_(mixed.group)
            self.prior.copy_(shares(mixed.counts.flatten(0, 1), self.grid.ranges).unflatten(0, mixed.counts.shape[:2]))
            self.weights.copy_(mixed.weights)

    def alone(self, ends: Tensor) -> Alone | None:
        if not self.grid.exact:
            return None
        classes = len(self.weights)
        means = self.table(self.prior)[..., :classes].permute(3, 0, 1, 2).flatten(0, 1)  # (K * groups, rows, columns)
        return Alone(self.grid, means, self._of_clean, ends)

    def _of_clean(self, x: Data) -> Tensor:
        """The histogram of each number of a clean x, that of its place in the likeliest class; int64."""
        _, groups, bins = self.prior.shape
        log_p = self.prior.log().flatten(1).T.contiguous()  # (groups * bins, K)
        evidence = functional.embedding(grey_of(x, bins) + bins * self.places, log_p).flatten(1, -2).sum(1)
        return expand((self.weights.log() + evidence).argmax(1), x) * groups + self.places

    def moments(self, y: Data, s: Tensor) -> tuple[Data, Data]:
        means, stds, log_p = self.grid.read_mixture(self.table(self.prior), self.places, y, s)
        posterior = torch.softmax(self.weights.log() + log_p.flatten(1, -2).sum(1), -1)  # (B, K)
        r = posterior.reshape(len(y), *[1] * (y.ndim - 1), len(self.weights))
        mean = (r * means).sum(-1)
        variance = (r * (stds**2 + (means - mean[..., None]) ** 2)).sum(-1)
        return mean, variance.clamp(min=1e-20).sqrt()  # the clamp keeps the gradient of the root finite


class Tabulated:
    """The table of a prior, made at its first use and again where the prior has changed, as by loading weights."""

    def __init__(self, make: Callable[[Tensor], Tensor]):
        self.make = make
        self.made: tuple[Tensor, int, Tensor, Tensor] | None = None  # prior, its version, its values, the table

    def __call__(self, prior: Tensor) -> Tensor:
        if self.made is None or self.made[0] is not prior or self.made[1] != prior._version:
            # several processes write their mean into the prior at each step: the same values need no other table
            same = self.made is not None and self.made[2].device == prior.device and torch.equal(self.made[2], prior)
            table = self.made[3] if self.made and same else self.make(prior.double()).to(prior.device)
            self.made = (prior, prior._version, prior.clone(), table)
        return self.made[3]


def _both(x: Data | None, eps: Data | None, x_t: Data, alpha: Tensor, sigma: Tensor) -> tuple[Data, Data]:
    """The one of x and eps that is missing, from x_t = alpha x + sigma eps."""
    if x is None:
        assert eps is not None
        return (x_t - sigma * eps) / alpha, eps
    return x, (x_t - alpha * x) / sigma
