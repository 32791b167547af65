"""The model that all diffusion methods share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffrep.codes.posteriors import Code, Posterior
from diffrep.codes.priors import Prior
from diffrep.data.views import View
from diffrep.denoising import terms
from diffrep.denoising.denoiser import Denoiser, Prediction
from diffrep.denoising.detail import Density, Levels
from diffrep.denoising.noise import Noise, variance_gradient
from diffrep.denoising.start import StandardStart, Start
from diffrep.models.base import Model
from diffrep.models.code_use import Seen, shuffle_gap
from diffrep.models.diffusion_decoder import DiffusionDecoder
from diffrep.models.loss_weights import Lag, Weight
from diffrep.shapes import Batch, CodeVector, Data, Draws, PerExample, Shape, Terms, Time, expand


@dataclass(frozen=True)
class Noised:
    """One step of training, all that a term may look at. weight (B,): looks / draws of the level of detail."""

    x: Data
    t: Time
    eps: Data
    x_t: Data
    log_snr: Time
    weight: Tensor
    code: Code | None
    z: CodeVector | None
    kept: Tensor  # (B,) 1 where the decoder sees the code, 0 where it is dropped
    prediction: Prediction
    model: DiffusionModel
    draws: Draws

    def coded(self) -> tuple[Code, CodeVector]:
        """The code of x and the z drawn from it; ValueError in a model without a code."""
        if self.code is None or self.z is None:
            raise ValueError("this term needs a code and the model has none; give it a posterior")
        return self.code, self.z


Term = Callable[[Noised], PerExample]


def taught(z: CodeVector, gate: Tensor) -> CodeVector:
    """z itself, but what it is used for sends back `gate` (B,) times its gradient: the code learns at some levels,
    the decoder at all."""
    return z.detach() + gate[:, None] * (z - z.detach())


class DiffusionModel(Model):
    """A diffusion decoder, and what it is given: a code (or none), noise, a level of detail, and a list of terms.

    denoiser: network, noise and parameterisation. posterior: q(z | x, t), or None. prior: p(z), or None. levels: where
    on the noise axis the loss looks. terms: name -> function of a `Noised` step. weights: name -> `Weight` of that
    term; one where missing. drop: share of examples whose code is withheld in training, so that one network is the
    conditional and the unconditional denoiser. critic: a second player, for adversarial score matching. view: what the
    encoder is shown of x in training, x itself where left out. start: p(x_1 | z), N(0, start_scale^2) where left out.
    begin: what sampling starts from where `start` is not learned; `start` itself where left out.
    gate: what the gradient that the denoiser sends to a code is multiplied by at each level, one where left out.
    """

    def __init__(
        self,
        shape: Shape,
        bins: int | None,
        denoiser: Denoiser,
        terms: Mapping[str, Term],
        levels: Levels,
        posterior: Posterior | None = None,
        prior: Prior | None = None,
        weights: Mapping[str, Weight] | None = None,
        drop: float = 0.0,
        critic: nn.Module | None = None,
        view: View | None = None,
        start: Start | None = None,
        begin: Start | None = None,
        lag: Lag | None = None,
        gate: Density | None = None,
    ):
        super().__init__(shape, bins, posterior, prior)
        self.denoiser, self.levels, self.critic = denoiser, levels, critic
        self.terms, self.drop, self.view = dict(terms), drop, view
        self.start, self.gate = StandardStart() if start is None else start, gate
        self.begin = self.start if begin is None or self.start.learned else begin
        self.weights = nn.ModuleDict(weights or {})
        self.target = weights["rate"].target if weights and "rate" in weights else None
        self.changing = (*(weights or {}).values(), levels)
        groups: dict[str, list[nn.Module]] = {"decoder": denoiser.networks, "noise": [denoiser.noise]}
        groups["start"] = [self.start]
        self.networks = denoiser.networks if posterior is None else [*denoiser.networks, posterior.encoder]
        if posterior is not None:
            groups["encoder"] = [posterior]
        if prior is not None:
            groups["prior"] = [prior]
        self.parts = {"model": groups} if critic is None else {"model": groups, "critic": {"critic": [critic]}}
        if lag is not None and posterior is not None:
            self.lag, self.parts["encoder"] = lag, {"encoder": [posterior]}
        self.seen: Seen | None = None

    @property
    def noise(self) -> Noise:
        return self.denoiser.noise

    @property
    def diffusion(self) -> DiffusionDecoder:
        parts = self.denoiser, self.start, self.posterior, self.prior
        return DiffusionDecoder(self.shape, self.bins, *parts, self.drop, self.begin)

    @property
    def generative(self) -> DiffusionDecoder:
        return self.diffusion

    def loss(self, batch: Batch, player: str = "model") -> Terms:
        step = self.noised(batch)
        if player == "critic" and self.critic is not None:
            fake = step.prediction.x.detach()
            return {"judge": terms.judge(self.critic(step.x), self.critic(fake))}
        values = {name: term(step) for name, term in self.terms.items()}
        self._observe(step, values)
        return {name: self.weights[name](v) if name in self.weights else v for name, v in values.items()}

    def noised(self, batch: Batch) -> Noised:
        """Draws t, eps, z and which codes are dropped, and denoises once."""
        x, draws = batch.x, batch.random
        t = self.levels.draw(self.noise, draws, len(x))
        eps = draws.normal(*x.shape)
        scales, log_snr, weight = self.noise.scales(t), self.noise.log_snr(t), self.levels.weight(self.noise, t)
        if self.noise.free_inside:
            scales, log_snr, weight, settle = variance_gradient(scales, log_snr, weight, math.prod(self.shape))
        x_t = expand(scales[0], x) * x + expand(scales[1], x) * eps
        code, z = self.diffusion.code(x if self.view is None else self.view(x, draws), log_snr.detach(), draws)
        dropped = draws.uniform(len(x)) < self.drop
        shown = z if z is None or self.gate is None else taught(z, self.gate(self.noise, t))
        prediction = self.denoiser.at(x_t, scales, log_snr, shown, dropped if self.drop and z is not None else None)
        if self.noise.free_inside:
            settle(terms.denoising(eps, prediction, weight).detach())
        kept = 1 - dropped.float()
        return Noised(x, t, eps, x_t, log_snr, weight, code, z, kept, prediction, self, draws)

    def shuffled(self) -> dict[str, Tensor]:
        return {} if self.seen is None else shuffle_gap(self.denoiser, self.start, self.seen)

    @torch.no_grad()
    def _observe(self, step: Noised, values: Terms) -> None:
        self.health, self.seen, self.drawn = {}, None, None
        lost = ~torch.stack([*values.values()]).isfinite().all(0)
        if lost.any():
            self.health["log_snr_not_finite"] = step.log_snr[lost][0]
        if step.code is not None and step.z is not None:
            scales = step.prediction.alpha, step.prediction.sigma
            shown = (step.x, step.eps, step.x_t, *scales, step.log_snr, step.z)
            self.seen = None if lost.any() else Seen(*(part.detach() for part in shown))
            variance = step.code.mean.var(0)
            self.health |= {"active_units": (variance > 0.01).sum(), "code_variance": variance.mean()}
            if "rate" in values:
                self.health["rate_nats"] = values["rate"].mean()
            if step.code.spread is not None and not self.timed:
                self.drawn = step.code.detached(), step.z.detach()
