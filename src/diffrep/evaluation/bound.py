"""The bound in bits per dimension over a whole split, part by part, with standard errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypedDict

import torch
from torch import Tensor

from diffrep.data import Examples
from diffrep.data.batches import batches
from diffrep.denoising import terms
from diffrep.models.base import Model, evaluating
from diffrep.models.diffusion_decoder import DiffusionDecoder
from diffrep.shapes import Batch, PerExample, Shape, bits_per_dim, mean_and_error

PROTOCOL = "bound-1"  # whole split, stratified log-SNRs, evaluation weights, weight one, one x_0 and z a level
IN_STEPS = "bound-in-steps-1"  # the same for a chain of T steps: stratified steps in place of log-SNRs


class Summary(TypedDict):
    """A bound and its parts in bits/dim, and the standard error of the bound over examples."""

    bits_per_dim: float
    bits_per_dim_se: float
    diffusion: float
    prior: float
    reconstruction: float
    rate: float


@dataclass(frozen=True)
class Bound:
    """-log p(x) <= diffusion + prior + reconstruction + rate, each (N,) nats, one for each example of a split.

    levels: noise levels for each example. A bound on continuous data bounds a density in units of x (its standardised
    columns for a table), which may be negative.
    """

    parts: dict[str, Tensor]
    shape: Shape
    levels: int
    active_units: int | None

    @property
    def total(self) -> Tensor:
        """(N,) nats."""
        return torch.stack([*self.parts.values()]).sum(0)

    def summary(self) -> Summary:
        """Means in bits/dim, and the standard error of their sum over the examples; a part that it lacks is 0."""

        def bits(nats: float) -> float:
            return float(bits_per_dim(nats, self.shape))

        means = {name: float(nats.double().mean()) for name, nats in self.parts.items()}
        mean, error = mean_and_error(self.total)
        return {
            "bits_per_dim": bits(mean),
            "bits_per_dim_se": bits(error),
            "diffusion": bits(means.get("diffusion", 0.0)),
            "prior": bits(means.get("prior", 0.0)),
            "reconstruction": bits(means.get("reconstruction", 0.0)),
            "rate": bits(means.get("rate", 0.0)),
        }

    @property
    def rate_nats(self) -> float:
        """Mean KL(q(z | x) || p(z)), nats for an example; 0 for a model without a code."""
        return float(self.parts["rate"].double().mean()) if "rate" in self.parts else 0.0


@torch.no_grad()
def bound(
    model: Model,
    examples: Examples,
    levels: int = 8,
    batch: int = 250,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Bound:
    """The bound of a model (its evaluation weights loaded) on every example of a split; UserError if it has none.

    Each example sees `levels` stratified noise levels. progress is called with the number of examples done.
    """
    collected: list[dict[str, Tensor]] = []
    means = []
    with evaluating(model) as device:
        for chunk in batches(examples, batch, seed, device):
            collected.append({name: nats.cpu() for name, nats in model.bound(chunk, levels).items()})
            if "rate" in collected[-1]:
                means.append(model.encode(chunk.x).mean.cpu())
            progress(len(chunk))
    parts = {name: torch.cat([part[name] for part in collected]) for name in collected[0]}
    return Bound(parts, examples.shape, levels, active_units(torch.cat(means)) if means else None)


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

    Each example sees as many stratified steps as it saw noise levels there, each with its own eps and z.
    """
    decoder, nats = model.needs_diffusion("it has no chain of steps"), []
    with evaluating(model) as device:
        for chunk in batches(examples, batch, seed, device):
            nats.append(_diffusion_in_steps(decoder, chunk, steps, continuous.levels).cpu())
            progress(len(chunk))
    return replace(continuous, parts={**continuous.parts, "diffusion": torch.cat(nats)})


def _diffusion_in_steps(decoder: DiffusionDecoder, batch: Batch, steps: int, levels: int) -> PerExample:
    """(B,) T/2 E expm1(gamma_t - gamma_s) |eps - eps_hat|^2 over the steps from t = i/T to s = (i - 1)/T, nats."""
    x, draws, nats = batch.x, batch.random, torch.zeros(len(batch), device=batch.x.device)
    for k in range(levels):
        i = ((k + draws.stratified(len(x))) / levels * steps).floor().clamp(max=steps - 1) + 1
        log_snr, before = decoder.noise.log_snr(i / steps), decoder.noise.log_snr((i - 1) / steps)
        eps = draws.normal(*x.shape)
        _, z = decoder.code(x, log_snr, draws)
        said = decoder.denoiser(decoder.noise.add(x, eps, i / steps), i / steps, z)
        nats += terms.diffusion_in_steps(eps, said, -log_snr, -before, steps) / levels
    return nats


def active_units(means: Tensor, threshold: float = 0.01) -> int:
    """How many of a code's numbers move: variance of their mean over examples above 0.01 (Burda et al. 2016)."""
    return int((means.var(0) > threshold).sum()) if len(means) > 1 else 0
