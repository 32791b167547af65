"""The model that all diffusion methods share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from diffrep.codes.posteriors import Code
from diffrep.denoising import terms
from diffrep.denoising.denoiser import Denoiser, Prediction
from diffrep.denoising.detail import Levels
from diffrep.denoising.noise import Noise, variance_gradient
from diffrep.denoising.start import StandardStart, Start
from diffrep.models.base import Model
from diffrep.models.code_use import DecoderStep, code_health, shuffle_gap
from diffrep.models.coding import Coding
from diffrep.models.diffusion_decoder import DiffusionDecoder
from diffrep.models.loss_weights import Weight, rate_target, weighted
from diffrep.shapes import Batch, CodeVector, Data, Draws, PerExample, Shape, Terms, Time, expand


@dataclass(frozen=True)
class Noised:
    """One step of training, the input of all terms. weight (B,): measure / proposal of the level of detail.

    code, z (N, d): of `whole` (N, *shape), the batch, of which the B examples in `denoised` are denoised.
    """

    whole: Tensor
    denoised: slice
    x: Data
    t: Time
    eps: Data
    x_t: Data
    log_snr: Time
    weight: Tensor
    code: Code | None
    z: Tensor | None
    kept: Tensor  # (B,) 1 where the decoder gets the code, 0 where it is dropped
    prediction: Prediction
    model: DiffusionModel
    draws: Draws
    denoiser: Denoiser  # of the model, with the covariate of the examples

    def coded(self) -> tuple[Code, CodeVector]:
        """The code of x and the z drawn from it; ValueError in a model without a code."""
        if self.code is None or self.z is None:
            raise ValueError("this term needs a code and the model has none; give it a posterior")
        return self.code, self.z

    def of_whole(self, nats: PerExample) -> Tensor:
        """(N,) with the mean of nats (B,) of the examples that are denoised; 0 for the others."""
        if len(nats) == len(self.whole):
            return nats
        whole = nats.new_zeros(len(self.whole))
        whole[self.denoised] = nats * (len(whole) / len(nats))
        return whole


Term = Callable[[Noised], PerExample]
EACH = slice(None, None, 1)


def gated(z: CodeVector, gate: Tensor) -> CodeVector:
    """z with its gradient multiplied by `gate` (B,): the encoder learns at some noise levels, the decoder at all."""
    return z.detach() + gate[:, None] * (z - z.detach())


@dataclass(frozen=True)
class Objective:
    """The loss of training: named terms, the level of detail, and the weight of each term.

    terms: name -> function of a `Noised` step. levels: the level of detail. weights: name -> `Weight` of that term, 1
    if missing.
    """

    terms: Mapping[str, Term]
    levels: Levels
    weights: Mapping[str, Weight] = field(default_factory=dict)


class DiffusionModel(Model):
    """A diffusion decoder with its objective, with a code or without one.

    denoiser: network, noise and parameterisation. objective: terms, level of detail and weights. coding: the code;
    None: there is none. start: p(x_1 | z); None: N(0, start_scale^2). begin: the distribution of x_1 in sampling where
    `start` is N(0, start_scale^2); None: `start`. critic: a second player, for adversarial score matching.
    """

    def __init__(
        self,
        shape: Shape,
        bins: int | None,
        denoiser: Denoiser,
        objective: Objective,
        coding: Coding | None = None,
        start: Start | None = None,
        begin: Start | None = None,
        critic: nn.Module | None = None,
    ):
        posterior, prior = (None, None) if coding is None else (coding.posterior, coding.prior)
        super().__init__(shape, bins, posterior, prior)
        self.denoiser, self.levels, self.critic = denoiser, objective.levels, critic
        self.terms, self.drop = dict(objective.terms), 0.0 if coding is None else coding.drop
        self.view, self.gate = (None, None) if coding is None else (coding.view, coding.gate)
        self.split, self.head = (None, None) if coding is None else (coding.split, coding.head)
        self.denoised = slice(None, None, 1 if coding is None else coding.denoise_every)
        self.start = StandardStart() if start is None else start
        self.begin = begin if begin is not None and self.start.centred else self.start
        self.weights, self.target = nn.ModuleDict(objective.weights), rate_target(objective.weights)
        self.changing = (*objective.weights.values(), objective.levels)
        self.networks = denoiser.networks if posterior is None else [*denoiser.networks, posterior.encoder]
        groups: dict[str, list[nn.Module]] = {
            "decoder": denoiser.networks,
            "noise": [denoiser.noise],
            "start": [self.start],
        }
        if posterior is not None:
            groups["encoder"] = [posterior]
        if prior is not None:
            groups["prior"] = [prior]
        if self.head is not None:
            groups["head"] = [self.head]
            self.networks = [*self.networks, self.head]
        self.parts = {"model": groups} if critic is None else {"model": groups, "critic": {"critic": [critic]}}
        if coding is not None and coding.lag is not None:
            self.lag, self.parts["encoder"] = coding.lag, {"encoder": [coding.posterior]}
        self.last: DecoderStep | None = None

    @property
    def noise(self) -> Noise:
        return self.denoiser.noise

    @property
    def diffusion(self) -> DiffusionDecoder:
        modules = self.denoiser, self.start, self.posterior, self.prior
        return DiffusionDecoder(self.shape, self.bins, *modules, self.drop, self.begin)

    @property
    def generative(self) -> DiffusionDecoder:
        return self.diffusion

    def loss(self, batch: Batch, player: str = "model") -> Terms:
        step = self.noised(batch)
        if player == "critic" and self.critic is not None:
            fake = step.prediction.x.detach()
            return {"judge": terms.judge(self.critic(step.x).float(), self.critic(fake).float())}
        values = {name: term(step) for name, term in self.terms.items()}
        self._observe(step, values)
        return weighted(self.weights, values)

    def noised(self, batch: Batch) -> Noised:
        """Draw t, eps, z and a mask of dropped codes, and denoise once."""
        x, draws = batch.x, batch.random
        half, x = (None, x) if self.split is None else self.split(x, draws)
        t = self.levels.draw(self.noise, draws, len(x))
        eps = draws.normal(*x.shape)
        scales, log_snr, weight = self.noise.scales(t), self.noise.log_snr(t), self.levels.weight(self.noise, t)
        view = half if half is not None else x if self.view is None else self.view(x, draws)
        code, z = self.diffusion.code(view, log_snr.detach(), draws)
        dropped = draws.uniform(len(x)) < self.drop
        shown = z if z is None or self.gate is None else gated(z, self.gate(self.noise, t))
        whole, covariate = x, batch.covariate
        if self.denoised != EACH:
            x, t, eps, log_snr, weight, dropped = (v[self.denoised] for v in (x, t, eps, log_snr, weight, dropped))
            scales = scales[0][self.denoised], scales[1][self.denoised]
            shown, covariate = (None if v is None else v[self.denoised] for v in (shown, covariate))
        if self.noise.free_inside:
            scales, log_snr, weight, settle = variance_gradient(scales, log_snr, weight, math.prod(self.shape))
        x_t = expand(scales[0], x) * x + expand(scales[1], x) * eps
        denoiser = self.denoiser.given(covariate)
        prediction = denoiser.at(x_t, scales, log_snr, shown, dropped if self.drop and z is not None else None)
        if self.noise.free_inside:
            settle(terms.denoising(eps, prediction, weight).detach())
        kept = 1 - dropped.float()
        return Noised(
            whole, self.denoised, x, t, eps, x_t, log_snr, weight, code, z, kept, prediction, self, draws, denoiser
        )

    def shuffled(self) -> dict[str, Tensor]:
        return {} if self.last is None else shuffle_gap(self.denoiser, self.start, self.last)

    @torch.no_grad()
    def _observe(self, step: Noised, values: Terms) -> None:
        self.health, self.last, self.drawn = {}, None, None
        lost = ~torch.stack([*values.values()]).isfinite().all(0)
        if len(of_lost := step.log_snr[lost[step.denoised]]):
            self.health["log_snr_not_finite"] = of_lost[0]
        if step.code is not None and step.z is not None:
            scales = step.prediction.alpha, step.prediction.sigma
            x, eps, x_t, alpha, sigma, log_snr, z = (
                value.detach() for value in (step.x, step.eps, step.x_t, *scales, step.log_snr, step.z[step.denoised])
            )
            last = DecoderStep(x, eps, x_t, alpha, sigma, log_snr, z, step.denoiser.covariate)
            self.last = None if lost.any() else last
            self.health |= code_health(step.code.mean)
            if "rate" in values:
                self.health["rate_nats"] = values["rate"].mean()
            if step.code.spread is not None and not self.timed:
                self.drawn = step.code.detached(), step.z.detach()
