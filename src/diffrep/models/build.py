"""Weights of loss terms from their sections of the settings, and their changes in training."""

from __future__ import annotations

import math

from diffrep.config import AnnealSettings, CodeSettings
from diffrep.denoising.build import density
from diffrep.denoising.detail import Density, Levels
from diffrep.errors import UserError
from diffrep.models.loss_weights import Annealed, Constant, Cyclic, Fading, FreeBits, Lag, TargetRate, WarmUp, Weight
from diffrep.shapes import Shape


def levels(detail: str, anneal: AnnealSettings, own: Density, shape: Shape) -> Levels:
    """The level of detail that the settings name; the method's own for "auto"."""
    measure = own if detail == "auto" else density(detail, shape)
    if anneal.detail is not None:
        return Levels(Fading(density(anneal.detail, shape), measure, anneal.steps))
    return Levels(measure) if detail == "auto" else Levels(measure, proposal=measure)


def decoder_weight(anneal: AnnealSettings) -> Weight | None:
    """A factor on the decoder's loss that goes to one, where the settings ask for it."""
    return None if anneal.factor == 1 else Annealed(anneal.factor, anneal.steps)


def rate_weight(code: CodeSettings, dim: int, rate: float | None = None, beta: float = 1.0) -> Weight:
    """The weight of the rate: that of the settings, else one that holds a target in nats, else the method's own
    beta."""
    if code.kind == "fixed-rate":
        return Constant(1.0)
    target = target_rate(code, dim, rate)
    if target is not None:
        return TargetRate(target)
    beta = beta if code.beta is None else code.beta
    if code.warmup:
        return WarmUp(beta, code.warmup)
    if code.cycle:
        return Cyclic(beta, code.cycle)
    return FreeBits(code.free_bits, beta) if code.free_bits else Constant(beta)


def target_rate(code: CodeSettings, dim: int, own: float | None) -> float | None:
    """Nats at which training holds the rate; None where the settings weight it in another way.

    own: the method's own target, lowered for a code that cannot hold as much. UserError: code.rate is out of reach.
    """
    free = code.beta is None and not (code.warmup or code.cycle or code.free_bits)
    target = own if code.rate is None and free else code.rate
    if target is None or code.kind != "categorical":
        return target
    most = dim // code.classes * math.log(code.classes)
    if code.rate is not None and code.rate >= most:
        raise UserError(
            f"a categorical code of {dim // code.classes} variables of {code.classes} classes holds less than"
            f" {most:.1f} nats, got code.rate={code.rate}; lower it, or raise code.dim or code.classes"
        )
    return min(target, 0.8 * most) if code.rate is None else target


def lag(code: CodeSettings, weight: Weight) -> Lag | None:
    """Extra steps of the encoder, where the settings ask for them. weight: that of the rate."""
    if not code.extra_steps:
        return None
    if not code.extra_until and weight.target is None:
        raise UserError(
            f"code.extra_steps={code.extra_steps} needs a target rate, and these settings have none; set code.rate, or"
            " set the number of steps with code.extra_until"
        )
    return Lag(code.extra_steps, code.extra_until, weight)
