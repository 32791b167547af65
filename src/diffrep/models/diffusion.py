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
from diffrep.denoising.noise import variance_gradient
from diffrep.denoising.probability_flow import dequantised_log_likelihood, flow_log_likelihood, invert
from diffrep.denoising.samplers import sample, step_named, times
from diffrep.denoising.start import StandardStart, Start
from diffrep.errors import UserError
from diffrep.models.base import CodePath, Model
from diffrep.models.code_use import Seen, shuffle_gap
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
        lag: Lag | None = None,
        gate: Density | None = None,
    ):
        super().__init__()
        self.shape, self.bins, self.drop, self.terms = shape, bins, drop, dict(terms)
        self.denoiser, self.levels, self.posterior, self.prior, self.critic = denoiser, levels, posterior, prior, critic
        self.view, self.start = view, StandardStart() if start is None else start
        self.gate = gate
        self.weights = nn.ModuleDict(weights or {})
        self.target = weights["rate"].target if weights and "rate" in weights else None
        self.changing = (*(weights or {}).values(), levels)
        self.has_code, self.timed = posterior is not None, posterior is not None and posterior.timed
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
        self.health = {}
        self.seen: Seen | None = None

    @property
    def noise(self):
        return self.denoiser.noise

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
        code, z = self._code(x if self.view is None else self.view(x, draws), log_snr.detach(), draws)
        dropped = draws.uniform(len(x)) < self.drop
        shown = z if z is None or self.gate is None else taught(z, self.gate(self.noise, t))
        prediction = self.denoiser.at(x_t, scales, log_snr, shown, dropped if self.drop and z is not None else None)
        if self.noise.free_inside:
            settle(terms.denoising(eps, prediction, weight).detach())
        kept = 1 - dropped.float()
        return Noised(x, t, eps, x_t, log_snr, weight, code, z, kept, prediction, self, draws)

    def bound(self, batch: Batch, levels: int = 8, code: Code | None = None) -> Terms:
        """diffusion, prior, reconstruction and, with a code, rate: -log p(x) <= their sum (VDM, Eq. 11).

        The diffusion loss is averaged over `levels` stratified log-SNRs for each example, drawn uniformly between the
        ends of the process (d log_snr = slope dt, so the integral is the same). Each level has its own eps and z.
        """
        if self.posterior is not None and (self.posterior.deterministic or self.timed):
            kind = "time-conditioned" if self.timed else "deterministic"
            raise UserError(f"a {kind} code has no finite rate, so there is no bound; see `denoising` beside it")
        nats = self.denoising_by_level(batch, levels, code=code)
        x, draws = batch.x, batch.random
        zero = torch.zeros(len(x), device=x.device)
        alpha, sigma = self.noise.scales(zero)
        end = terms.data_end(x, self.noise.add(x, draws.normal(*x.shape), zero), alpha, sigma, self.bins)
        code, z = self._code(x, zero, draws, code)
        prior_loss = self.noise.prior_loss(x, self.start(self.noise, z))
        bound = {"diffusion": nats.mean(1), "prior": prior_loss, "reconstruction": end}
        if code is not None and z is not None and self.prior is not None:
            bound["rate"] = self.prior.rate(code, z)
        return bound

    def flow_bound(self, batch: Batch, steps: int = 50) -> PerExample:
        if self.has_code:
            raise UserError("the flow's likelihood is for models without a code; a code has a bound with its rate")
        denoise, draws, end = self.conditioned(None, len(batch)), batch.random, self.start(self.noise)
        if self.bins is not None:
            return -dequantised_log_likelihood(denoise, self.noise, batch.x, steps, draws, end=end, bins=self.bins)
        log_alpha, _ = self.noise.log_scales(torch.zeros(len(batch), device=batch.x.device))
        x_0 = expand(log_alpha.exp(), batch.x) * batch.x
        log_p = flow_log_likelihood(denoise, self.noise, x_0, steps, draws, end=end)
        return -(log_p + math.prod(self.shape) * log_alpha)

    def denoising_by_level(
        self, batch: Batch, levels: int = 8, with_code: bool = True, code: Code | None = None
    ) -> Tensor:
        """(B, levels) 1/2 |eps - eps_hat|^2 (log_snr_0 - log_snr_1), nats, at stratified log-SNRs, noisy levels last.

        Its mean over levels is the diffusion loss at weight one; `with_code=False` asks the null-code branch, `code`
        takes the place of the encoder's.
        """
        x, draws = batch.x, batch.random
        ends = self.noise.log_snr(torch.tensor([0.0, 1.0], device=x.device))
        nats = []
        for k in range(levels):
            log_snr = ends[0] + (ends[1] - ends[0]) * (k + draws.stratified(len(x))) / levels
            t = self.noise.time(log_snr)
            eps = draws.normal(*x.shape)
            x_t = self.noise.add(x, eps, t)
            _, z = self._code(x, log_snr, draws, code)
            prediction = self.denoiser(x_t, t, z if with_code else None)
            nats.append(terms.denoising(eps, prediction, ends[0] - ends[1]))
        return torch.stack(nats, 1)

    @torch.no_grad()
    def encode(self, x: Data, t: float | Time | None = None) -> Code:
        if self.posterior is None:
            raise UserError("this method has no code; train one that has (`diffrep methods` lists them)")
        if not self.timed:
            if t is not None:
                raise UserError("this code does not depend on t; leave t out, or train tdrl or tvdrl")
            return self.posterior(x)
        at = torch.as_tensor(0.5 if t is None else t, dtype=torch.float32, device=x.device).expand(len(x))
        return self.posterior(x, self.noise.log_snr(at))

    @torch.no_grad()
    def decode(
        self,
        z: CodeVector | CodePath | None,
        n: int,
        draws: Draws,
        sampler: str = "dpm",
        steps: int = 50,
        x_1: Data | None = None,
    ) -> Data:
        if z is None and self.has_code and not self.drop:
            raise UserError("this model was trained with code.drop=0, so it cannot decode without a code; give it one")
        mean, spread = self._start(z, n)
        x_1 = mean + spread * (draws.normal(n, *self.shape) if x_1 is None else x_1)
        x = sample(self.conditioned(z, n), self.noise, x_1, step_named(sampler), times(self.noise, steps), draws)
        return x.clamp(-1, 1) if self.bins is not None else x

    @torch.no_grad()
    def invert(self, x: Data, steps: int = 100) -> Data:
        path = None if self.posterior is None else self.code_path(x)
        alpha, _ = self.noise.scales(torch.zeros(len(x), device=x.device))
        x_0 = expand(alpha, x) * x
        mean, spread = self._start(path, len(x))
        return (invert(self.conditioned(path, len(x)), self.noise, x_0, steps) - mean) / spread

    def conditioned(self, z: CodeVector | CodePath | None, n: int) -> Callable[[Data, Time], Prediction]:
        """The denoiser of n examples with its code filled in; UserError for codes of the wrong size."""
        if z is None or callable(z):
            return lambda x_t, t: self.denoiser(x_t, t, None if z is None else z(t))
        dim = 0 if self.posterior is None else self.posterior.dim
        if tuple(z.shape) != (n, dim):
            raise UserError(f"expected codes of shape ({n}, {dim}), got {tuple(z.shape)}")
        return lambda x_t, t: self.denoiser(x_t, t, z)

    def _start(self, z: CodeVector | CodePath | None, n: int) -> tuple[Tensor, Tensor]:
        one = torch.ones(n, device=next(self.parameters()).device)
        return self.start(self.noise, z(one) if callable(z) else z)

    def _code(
        self, x: Data, log_snr: Time, draws: Draws, known: Code | None = None
    ) -> tuple[Code | None, CodeVector | None]:
        if self.posterior is None:
            return None, None
        code = self.posterior(x, log_snr) if known is None else known
        return code, code.sample(draws.normal(*code.mean.shape))

    def shuffled(self) -> dict[str, Tensor]:
        return {} if self.seen is None else shuffle_gap(self.denoiser, self.start, self.seen)

    @torch.no_grad()
    def _observe(self, step: Noised, values: Terms) -> None:
        self.health, self.seen = {}, None
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
