"""The twin of a model with a code: the same decoder and noise without it, and as many parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from diffrep.config import CodeSettings, EncoderSettings, PriorSettings, Settings, override
from diffrep.errors import UserError
from diffrep.methods.catalog import METHODS, build, method
from diffrep.models.base import Model
from diffrep.shapes import Facts, Uncounted

TOLERANCE = 0.02  # by which the parameters of twins may differ
STEP = 4  # of a decoder's width; other widths leave group norms with a single group
DECODER_OF_A_CODE = {"observe_code": False, "draw_code": False, "code_until": None}


def parameters(model: Model) -> int:
    """The number of parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def twin(settings: Settings, facts: Facts) -> Settings:
    """Settings of the model without a code whose number of parameters is that of the model within 2 %.

    The parameters of the encoder go to the decoder: to its width and, where that is too coarse, to the width of the
    embedding of the noise level. UserError: a method without a twin, settings that make no model, no fit.
    """
    name = method(settings.method).twin
    if name is None:
        able = ", ".join(key for key, value in METHODS.items() if value.twin)
        raise UserError(f"{settings.method} has no twin without a code; leave out twin = true, or use one of {able}.")
    target = parameters(build(settings, facts, warn=False))
    plain = settings.model_copy(
        update={
            "method": name,
            "code": CodeSettings(),
            "encoder": EncoderSettings(),
            "prior": PriorSettings(),
            "decoder": settings.decoder.model_copy(update=DECODER_OF_A_CODE),
        }
    )
    uncounted = replace(facts, counted=Uncounted())

    def of(width: int, condition: int | None) -> Settings:
        return override(plain, [f"decoder.width={width}", f"decoder.condition_width={condition or 'none'}"])

    def size(width: int, condition: int | None) -> int:
        with torch.device("meta"):
            return parameters(build(of(width, condition), uncounted, warn=False))

    own, below = settings.decoder.condition_width, _below(lambda width: size(width, None), target)
    widths = (below // STEP * STEP, below // STEP * STEP + STEP) if below >= STEP else (below, below + 1)
    tried = [(abs(size(width, own) / target - 1), of(width, own)) for width in widths]
    if min(error for error, _ in tried) > TOLERANCE:
        condition = _below(lambda c: size(widths[0], c), target)
        tried += [(abs(size(widths[0], c) / target - 1), of(widths[0], c)) for c in (condition, condition + 1)]
    error, nearest = min(tried, key=lambda pair: pair[0])
    if error > TOLERANCE:
        raise UserError(
            f"no twin of this {settings.method} has its {target:,} parameters within {TOLERANCE:.0%} (the nearest,"
            f" decoder.width={nearest.decoder.width}, is off by {error:.1%}); change encoder.width or decoder.width a"
            " little."
        )
    return nearest


def _below(size: Callable[[int], int], target: int) -> int:
    """The largest number, from 1 on, whose size is at most the target; sizes rise. 1 where there is none."""
    high = 2
    while size(high) <= target:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= target else (low, middle)
    return low
