"""A pilot run on a few examples: the noise levels of a bound, their number, and its control variates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from diffrep.codes.posteriors import Code
from diffrep.data import Examples
from diffrep.data.batches import batches
from diffrep.denoising.alone import Alone
from diffrep.denoising.neighbours import by_neighbours
from diffrep.models.base import Model
from diffrep.models.diffusion_decoder import DiffusionDecoder
from diffrep.shapes import Batch, Data, Draws, PerExample, Time, piece_seed
from diffrep.threads import in_order

EXAMPLES, STRETCHES = 128, 16  # of the pilot run; stretches of the log-SNR axis
PIECES = 4  # of the pilot run, some of which are made at once
EVEN = 0.1  # share of the noise levels that is uniform over the axis
STEEPEST = 2.0  # slope of a control, at most: where the pilot run hardly shows it, the fitted slope is noise
DESCENTS = 20  # rounds of the fit of the slopes
SEED = 104_729  # of the pilot's noise, other than that of the bound
MOST = 64  # noise levels for an example, at most
THIRD = 1 / 3  # largest error of Monte Carlo, as a share of the error of the test set as a sample


@dataclass(frozen=True)
class Plan:
    """The estimator of the diffusion loss in a bound.

    shares (S,): share of the noise levels in each of S equal stretches of the log-SNR axis, clean to noisy. controls
    (J), slopes (S, J): the control variates, and their factors in each stretch. variance: of the estimate from one
    noise level around the loss of the example, nats^2. rest: the same of the terms that are drawn once. levels: noise
    levels for each example, so that the error of Monte Carlo is at most a third of that of the test set as a sample.
    """

    shares: Tensor
    slopes: Tensor
    controls: Sequence[Alone]
    variance: float
    rest: float
    levels: int

    def place(self, u: Time) -> tuple[Time, Time]:
        """u (B,), uniform in [0, 1) -> positions on the axis with density `shares`, and one over that density."""
        ends = self.shares.cumsum(0).to(u)
        k = torch.searchsorted(ends, u.contiguous(), right=True).clamp(max=len(ends) - 1)
        share = self.shares.to(u)[k]
        inside = ((u - (ends[k] - share)) / share).clamp(0, 1)
        return (k + inside) / len(ends), 1 / (len(ends) * share)

    def loss_at(self, decoder: DiffusionDecoder, batch: Batch, u: Time, code: Code | None) -> PerExample:
        """The weighted diffusion loss at the position of u minus the control variates; (B,) nats."""
        position, weight = self.place(u)
        nats, y, log_snr = decoder.loss_at(batch, position, code=code)
        at = (position * len(self.slopes)).long().clamp(max=len(self.slopes) - 1)
        for control, slopes in zip(self.controls, self.slopes.to(nats).T, strict=True):
            nats = nats - slopes[at] * control.loss(batch.x, y, log_snr)
        return weight * nats

    def control_mean(self, batch: Batch) -> Tensor:
        """The mean of the control variates, to be added to `loss_at`; (B,) nats."""
        slopes = self.slopes.to(batch.x).T
        means = (control.mean(batch.x, of_control) for control, of_control in zip(self.controls, slopes, strict=True))
        return sum(means, torch.zeros(len(batch), device=batch.x.device))


@torch.no_grad()
def pilot(model: Model, examples: Examples, device: torch.device, seed: int = 0) -> Plan:
    """The plan for a model and a split, from 128 evenly chosen examples at 16 noise levels each.

    A split of fewer examples repeats them, each time with other noise: a plan from few draws would fit their noise.
    """
    chosen = examples.evenly(EXAMPLES)
    rows = chosen.repeat(-(-EXAMPLES // len(chosen)))[:EXAMPLES] if len(chosen) else chosen
    (batch,) = batches(examples, EXAMPLES, seed + SEED, device, rows)
    controls = [] if model.diffusion is None else _controls(model.diffusion, batch.x)
    pieces = [_piece(batch, k, piece_seed(seed + SEED, 0), device) for k in range(PIECES)]
    made = [tensors for _, tensors in in_order(partial(_of_piece, model, controls), pieces, device)]
    first, second, *drawn = (torch.cat(of_pieces).double().cpu() for of_pieces in zip(*made, strict=True))
    rest = float((first - second).square().mean() / 2)
    if model.diffusion is None:
        return Plan(torch.ones(1), torch.zeros(1, 0), (), 0.0, rest, 1)
    f, v, *c = drawn
    return _plan(f, c, v, controls, first + f.mean(1), rest, len(chosen))


def _piece(batch: Batch, k: int, seed: int, device: torch.device) -> Batch:
    """The k-th of `PIECES` equal pieces of a batch, with the random numbers that it has in the whole."""
    rows = slice(k * len(batch) // PIECES, (k + 1) * len(batch) // PIECES)
    covariate = None if batch.covariate is None else batch.covariate[rows]
    return Batch(
        batch.x[rows], batch.index[rows], draws=Draws.of(seed, device, shard=k, shards=PIECES), covariate=covariate
    )


def _of_piece(model: Model, controls: Sequence[Alone], batch: Batch) -> list[Tensor]:
    """Two draws (B,) of the terms that are drawn once; by stretch (B, S) losses, places inside, and of each control."""
    code = model.encode(batch.x) if model.has_code else None
    once = [torch.stack([*model.ends(batch, code).values()]).sum(0) for _ in range(2)]
    if model.diffusion is None:
        return once
    columns: list[list[Tensor]] = []
    for k in range(STRETCHES):
        inside = batch.random.stratified(len(batch))
        loss, y, log_snr = model.diffusion.loss_at(batch, (k + inside) / STRETCHES, code=code)
        columns.append([loss, inside, *(control.loss(batch.x, y, log_snr) for control in controls)])
    return [*once, *(torch.stack(column, 1) for column in zip(*columns, strict=True))]


def _controls(decoder: DiffusionDecoder, x: Data) -> list[Alone]:
    """The control variates for a decoder; x: examples whose grey levels are counted."""
    ends = decoder.log_snr_ends(x.device)
    neighbours = None if decoder.bins is None else by_neighbours(x, decoder.bins, ends)
    alone = decoder.denoiser.parameterisation.alone(ends)
    return [control for control in (alone, neighbours) if control is not None]


def _plan(
    f: Tensor, c: list[Tensor], v: Tensor, controls: Sequence[Alone], whole: Tensor, rest: float, examples: int
) -> Plan:
    """f, c (n, S): losses of the network and of each control; v: places inside of the stretches; whole (n,): bounds.

    examples: the number of different examples among the n.
    """
    stretches = f.shape[1]
    f, c = _detrended(f, v), [_detrended(of_control, v) for of_control in c]
    slopes = _slopes(f, c)
    residual = f - sum((b * of_control for b, of_control in zip(slopes.T, c, strict=True)), torch.zeros_like(f))
    std = _widened(residual.square().mean(0).sqrt())
    shares = (1 - EVEN) * std / std.sum().clamp(min=1e-30) + EVEN / stretches
    shares = shares / shares.sum()
    single = float((residual.square().mean(0) / (stretches**2 * shares)).sum())
    own = _between(residual)  # variance between examples, which the estimate keeps
    variance = max(single - own, 0.0)
    between = float(whole.var()) - float(f.square().mean(0).sum()) / stretches**2 - rest
    sample = max(between, 1e-30) * examples / (examples - 1) if examples > 1 else 1.0
    room = THIRD**2 * sample - rest
    levels = MOST if room <= variance / MOST else max(1, math.ceil(variance / room))
    return Plan(shares.float(), slopes.float(), controls, variance, rest, levels)


def _slopes(f: Tensor, c: list[Tensor]) -> Tensor:
    """(S, J): in each stretch the slopes of J controls, in [0, STEEPEST], for which |f - sum_j slope_j c_j|^2 is least;
    by coordinate descent."""
    slopes, residual = f.new_zeros(f.shape[1], len(c)), f
    for _ in range(DESCENTS):
        for j, of_control in enumerate(c):
            without = residual + slopes[:, j] * of_control
            power = of_control.square().sum(0).clamp(min=1e-30)
            slopes[:, j] = ((without * of_control).sum(0) / power).clamp(0, STEEPEST)
            residual = without - slopes[:, j] * of_control
    return slopes


def _detrended(y: Tensor, v: Tensor) -> Tensor:
    """y (n, S) minus the linear fit in v of each column, which leaves the differences between examples."""
    v = v - v.mean(0)
    y = y - y.mean(0)
    return y - v * ((y * v).sum(0) / (v * v).sum(0).clamp(min=1e-30))


def _widened(std: Tensor) -> Tensor:
    """std (S,), each at least a quarter of its neighbours'.

    Where the loss begins to rise, large losses are rare, and the pilot run has too few draws to show them.
    """
    near = torch.cat([std[:1], std, std[-1:]])
    return torch.stack([std, near[:-2] / 4, near[2:] / 4]).amax(0)


def _between(y: Tensor) -> float:
    """The variance over examples of their means, where y (n, S) is these means plus noise."""
    stretches = y.shape[1]
    blurred = float(y.mean(1).square().mean() - y.square().mean(0).sum() / stretches**2)
    return max(blurred / (1 - 1 / stretches), 0.0)
