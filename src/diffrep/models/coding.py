"""A code at work in training: what makes it, what draws it, and how it learns."""

from __future__ import annotations

from dataclasses import dataclass

from diffrep.codes.posteriors import Posterior
from diffrep.codes.priors import Prior
from diffrep.data.views import View
from diffrep.denoising.detail import Density
from diffrep.models.loss_weights import Lag


@dataclass(frozen=True)
class Coding:
    """The code of a diffusion model, and how it learns.

    posterior: q(z | x, t). prior: p(z), None where no code is drawn. drop: share of examples whose code is withheld in
    training, so that one network is the conditional and the unconditional denoiser. view: what the encoder is shown of
    x in training; None: x itself. gate: at each level, the factor on the gradient that the denoiser sends to the code;
    None: one. lag: when the encoder takes turns of its own; None: never.
    """

    posterior: Posterior
    prior: Prior | None = None
    drop: float = 0.0
    view: View | None = None
    gate: Density | None = None
    lag: Lag | None = None
