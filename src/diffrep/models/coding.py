"""The code of a diffusion model in training: posterior, prior, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from diffrep.codes.posteriors import Posterior
from diffrep.codes.priors import Prior
from diffrep.data.views import Split, View
from diffrep.denoising.detail import Density
from diffrep.models.loss_weights import Lag


@dataclass(frozen=True)
class Coding:
    """The code of a diffusion model, and how it is trained.

    posterior: q(z | x, t). prior: p(z), None where no code can be drawn. drop: share of examples whose code is dropped
    in training, so that one network is the conditional and the unconditional denoiser. view: changes x for the encoder
    in training; None: no change. split: in its place, cuts x into what the encoder sees and what the decoder makes.
    gate: factor at each noise level on the gradient that the denoiser sends to the code; None: 1. lag: extra updates of
    the encoder; None: none. head: projects codes for a loss that compares two views; None: there is no such loss.
    denoise_every: n: each n-th example is denoised; all are encoded.
    """

    posterior: Posterior
    prior: Prior | None = None
    drop: float = 0.0
    view: View | None = None
    split: Split | None = None
    gate: Density | None = None
    lag: Lag | None = None
    head: nn.Module | None = None
    denoise_every: int = 1
