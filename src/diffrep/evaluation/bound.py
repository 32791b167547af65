"""The bound in bits per dimension over a whole split, term by term, with standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from diffrep.data import Examples
from diffrep.data.batches import batches
from diffrep.denoising import terms
from diffrep.evaluation.pilot import Plan, pilot
from diffrep.models.base import Model, evaluating
from diffrep.models.code_use import ACTIVE
from diffrep.models.diffusion_decoder import DiffusionDecoder
from diffrep.shapes import Batch, PerExample, Shape, bits_per_dim, mean_and_error
from diffrep.threads import in_order

# whole split, weight one, evaluation weights; noise levels and their control variates by a pilot; one x_0 an example
PROTOCOL = "bound-3"
IN_STEPS = "bound-in-steps-1"  # the same for a chain of T steps: stratified steps in place of log-SNRs


class Summary(TypedDict):
    """A bound and its terms in bits/dim, and its standard error: se^2 = monte_carlo_se^2 + sample_se^2.

    monte_carlo_se comes from random noise levels, eps and z, and falls with more levels; sample_se from the split as a
    sample of its population.
    """

    bits_per_dim: float
    bits_per_dim_se: float
    monte_carlo_se: NotRequired[float]
    sample_se: NotRequired[float]
    diffusion: float
    prior: float
    reconstruction: float
    rate: float


@dataclass(frozen=True)
class Bound:
    """-log p(x) <= diffusion + prior + reconstruction + rate, each (N,) nats, one for each example of a split.

    levels: noise levels for each example. A bound on continuous data bounds a density in units of x (its standardised
    columns for a table), which may be negative. measured_error: standard error of the mean total, nats, where it is not
    that of independent totals. monte_carlo: the part of it from random noise levels, eps and z: the standard error of
    the mean as an estimate of the exact bound on this split.
    """

    parts: dict[str, Tensor]
    shape: Shape
    levels: int
    active_units: int | None
    measured_error: float | None = None
    monte_carlo: float | None = None

    @property
    def total(self) -> Tensor:
        """(N,) nats."""
        return torch.stack([*self.parts.values()]).sum(0)

    def summary(self) -> Summary:
        """Means in bits/dim, and the standard error of their sum over the examples; a missing term is 0."""

        def bits(nats: float) -> float:
            return float(bits_per_dim(nats, self.shape))

        means = {name: float(nats.double().mean()) for name, nats in self.parts.items()}
        mean, error = mean_and_error(self.total)
        error = error if self.measured_error is None else self.measured_error
        summary: Summary = {
            "bits_per_dim": bits(mean),
            "bits_per_dim_se": bits(error),
            "diffusion": bits(means.get("diffusion", 0.0)),
            "prior": bits(means.get("prior", 0.0)),
            "reconstruction": bits(means.get("reconstruction", 0.0)),
            "rate": bits(means.get("rate", 0.0)),
        }
        if self.monte_carlo is not None:
            summary["monte_carlo_se"] = bits(self.monte_carlo)
            summary["sample_se"] = bits(math.sqrt(max(error**2 - self.monte_carlo**2, 0.0)))
        return summary

    @property
    def rate_nats(self) -> float:
        """Mean KL(q(z | x) || p(z)), nats for an example; 0 for a model without a code."""
        return float(self.parts["rate"].double().mean()) if "rate" in self.parts else 0.0


@torch.no_grad()
def bound(
    model: Model,
    examples: Examples,
    levels: int | None = None,
    batch: int = 250,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Bound:
    """The bound of a model (its evaluation weights loaded) on every example of a split; UserError if it has none.

    Each example is denoised at `levels` noise levels, stratified for each example and over its batch; a pilot chooses
    their density, and their number where `levels` is None (see `Plan`). progress is called with the number of examples
    done.
    """
    collected: list[_OfBatch] = []
    with evaluating(model) as device:
        plan = pilot(model, examples, device, seed)
        levels = plan.levels if levels is None else levels
        chunks = batches(examples, batch, seed, device)
        for chunk, made in in_order(partial(_of_batch, model, plan, levels), chunks, device):
            collected.append(made)
            progress(len(chunk))
    parts = {name: torch.cat([made.parts[name] for made in collected]) for name in collected[0].parts}
    means = [made.means for made in collected if made.means is not None]
    active = active_units(torch.cat(means)) if means else None
    drawn = [made.drawn for made in collected if made.drawn is not None]
    return _with_errors(Bound(parts, examples.shape, levels, active), plan, drawn)


@dataclass(frozen=True)
class _OfBatch:
    """Of a batch: terms (B,), nats; losses (B, levels) at the positions u (B, levels); means of codes (B, d)."""

    parts: dict[str, Tensor]
    drawn: tuple[Tensor, Tensor] | None
    means: Tensor | None


def _of_batch(model: Model, plan: Plan, levels: int, chunk: Batch) -> _OfBatch:
    code = model.encode(chunk.x) if model.has_code else None
    parts, drawn = {}, None
    if model.diffusion is not None:
        u = [(k + chunk.random.stratified(len(chunk))) / levels for k in range(levels)]
        nats = torch.stack([plan.loss_at(model.diffusion, chunk, position, code) for position in u], 1)
        parts["diffusion"] = nats.mean(1) + plan.control_mean(chunk)
        drawn = nats.cpu(), torch.stack(u, 1).cpu()
    parts |= model.ends(chunk, code)
    means = code.mean.cpu() if "rate" in parts and code is not None else None
    return _OfBatch({name: nats.cpu() for name, nats in parts.items()}, drawn, means)


def _with_errors(bound: Bound, plan: Plan, drawn: list[tuple[Tensor, Tensor]]) -> Bound:
    """The bound with its errors. drawn: of each batch (B, levels) nats and their u in [0, 1).

    Positions are even over a batch, so the dependence of the loss on the position alone averages out. It is subtracted
    before the variance over examples is taken. Few examples may scatter by less than their Monte Carlo, whose error is
    then the whole.
    """
    total, n, fitted = bound.total.double(), len(bound.total), 1.0
    if n < 2:
        return bound
    if drawn:
        losses, positions = map(torch.cat, zip(*drawn, strict=True))
        by_position, cells = _by_position(losses.double(), positions)
        total, fitted = total - by_position.mean(1), cells / bound.levels
    error = math.sqrt(float((total - total.mean()).square().sum()) / (n - fitted) / n)
    chance = math.sqrt((plan.variance / bound.levels + plan.rest) / n)
    return replace(bound, measured_error=max(error, chance), monte_carlo=chance)


def _by_position(nats: Tensor, u: Tensor, cells: int = 64) -> tuple[Tensor, int]:
    """(N, levels): the mean of nats (N, levels) over examples with u in the same cell, and the number of cells."""
    cells = max(nats.shape[1], min(cells, nats.numel() // 32))
    cell = (u * cells).long().clamp(max=cells - 1).flatten()
    count = torch.zeros(cells, dtype=nats.dtype).index_add(0, cell, torch.ones_like(nats).flatten()).clamp(min=1)
    mean = torch.zeros(cells, dtype=nats.dtype).index_add(0, cell, nats.flatten()) / count
    return mean[cell].reshape(nats.shape), cells


@torch.no_grad()
def in_steps(
    model: Model,
    continuous: Bound,
    examples: Examples,
    steps: int,
    batch: int = 250,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Bound:
    """The bound of a chain of finite length T = `steps`; its ends and its rate are those of the continuous bound.

    Each example has as many stratified steps as it had noise levels there, at least eight, each with its own eps and z.
    """
    decoder, nats = model.needs_diffusion("it has no chain of steps"), []
    levels = max(8, continuous.levels)
    with evaluating(model) as device:
        chunks = batches(examples, batch, seed, device)
        for chunk, of_chunk in in_order(lambda c: _diffusion_in_steps(decoder, c, steps, levels), chunks, device):
            nats.append(of_chunk.cpu())
            progress(len(chunk))
    parts = {**continuous.parts, "diffusion": torch.cat(nats)}
    return replace(continuous, parts=parts, levels=levels, measured_error=None, monte_carlo=None)


def _diffusion_in_steps(decoder: DiffusionDecoder, batch: Batch, steps: int, levels: int) -> PerExample:
    """(B,) T/2 E expm1(gamma_t - gamma_s) |eps - eps_hat|^2 over the steps from t = i/T to s = (i - 1)/T, nats."""
    decoder = decoder.given(batch.covariate)
    x, draws, nats = batch.x, batch.random, torch.zeros(len(batch), device=batch.x.device)
    for k in range(levels):
        i = ((k + draws.stratified(len(x))) / levels * steps).floor().clamp(max=steps - 1) + 1
        log_snr, before = decoder.noise.log_snr(i / steps), decoder.noise.log_snr((i - 1) / steps)
        eps = draws.normal(*x.shape)
        _, z = decoder.code(x, log_snr, draws)
        prediction = decoder.denoiser(decoder.noise.add(x, eps, i / steps), i / steps, z)
        nats += terms.diffusion_in_steps(eps, prediction, -log_snr, -before, steps) / levels
    return nats


def active_units(means: Tensor, threshold: float = ACTIVE) -> int:
    """The number of units of a code whose mean has a variance over examples above 0.01 (Burda et al. 2016)."""
    return int((means.var(0) > threshold).sum()) if len(means) > 1 else 0


def effective_rank(means: Tensor) -> float:
    """RankMe (Garrido et al. 2023, Eq. 1): exp of the entropy of the shares of the singular values of codes (N, d).

    Between 1 and min(N, d): along how many directions codes differ, with weights. A high rank is no proof of a good
    code: noise has the highest.
    """
    values = torch.linalg.svdvals(means.double())
    shares = values / values.sum() + 1e-7
    return float((-shares * shares.log()).sum().exp())
