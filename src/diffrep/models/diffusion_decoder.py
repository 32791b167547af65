"""A decoder that removes noise step by step: samples, inversion, likelihoods."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffrep.codes.posteriors import Code, Posterior
from diffrep.codes.priors import Prior
from diffrep.denoising import terms
from diffrep.denoising.denoiser import Denoiser, Prediction
from diffrep.denoising.noise import Noise
from diffrep.denoising.probability_flow import dequantised_log_likelihood, flow_log_likelihood, invert
from diffrep.denoising.samplers import USUAL, Sampling, sample
from diffrep.denoising.start import Start
from diffrep.errors import UserError
from diffrep.models.generative import CodePath, Generative, Given
from diffrep.shapes import Batch, CodeVector, Data, Draws, PerExample, Shape, Terms, Time, expand


@dataclass(frozen=True)
class DiffusionDecoder(Generative):
    """p(x | z) of a denoiser. posterior, prior: q(z | x, t) and p(z), None without a code. start: p(x_1 | z) of
    the bound, begin: the distribution of x_1 in sampling.

    drop: the share of examples that were denoised without their code in training. At 0 the decoder cannot denoise
    without a code.
    """

    shape: Shape
    bins: int | None
    denoiser: Denoiser
    start: Start
    posterior: Posterior | None
    prior: Prior | None
    drop: float
    begin: Start

    @property
    def noise(self) -> Noise:
        return self.denoiser.noise

    @property
    def no_bound(self) -> str | None:
        if self.posterior is None or not (self.posterior.deterministic or self.posterior.timed):
            return None
        kind = "time-conditioned" if self.posterior.timed else "deterministic"
        return f"a {kind} code has no finite rate, so there is no bound; see `denoising` beside it"

    def given(self, covariate: Tensor | None) -> DiffusionDecoder:
        return replace(self, denoiser=self.denoiser.given(covariate))

    def covariate(self, n: int, draws: Draws) -> Tensor | None:
        return self.denoiser.drawn(n, draws)

    def bound(self, batch: Batch, levels: int = 8, code: Code | None = None) -> Terms:
        """diffusion, prior, reconstruction and, with a code, rate: -log p(x) <= their sum (VDM, Eq. 11).

        The diffusion loss is averaged over `levels` stratified log-SNRs for each example, drawn uniformly between the
        ends of the process (d log_snr = slope dt, so the integral is the same). Each level has its own eps and z.
        """
        ends = self.ends(batch, code)
        return {"diffusion": self.denoising_by_level(batch, levels, code=code).mean(1), **ends}

    def ends(self, batch: Batch, code: Code | None = None) -> Terms:
        if self.no_bound is not None:
            raise UserError(self.no_bound)
        x, draws = batch.x, batch.random
        zero = torch.zeros(len(x), device=x.device)
        alpha, sigma = self.noise.scales(zero)
        end = terms.data_end(x, self.noise.add(x, draws.normal(*x.shape), zero), alpha, sigma, self.bins)
        code, z = self.code(x, zero, draws, code)
        nats = {"prior": self.noise.prior_loss(x, self.start(self.noise, z)), "reconstruction": end}
        if code is not None and z is not None and self.prior is not None:
            nats["rate"] = self.prior.rate(code, z)
        return nats

    def flow_bound(self, batch: Batch, steps: int = 50) -> PerExample:
        """-log p(x) by the probability flow, (B,) nats; UserError for a model with a code.

        Grey levels are dequantised uniformly, which makes it a bound; continuous data give the density itself.
        """
        if self.posterior is not None:
            raise UserError(
                "the likelihood of the flow is for models without a code, and this one has a code; use its bound"
            )
        denoise = self.given(batch.covariate).conditioned(None, len(batch))
        draws, end = batch.random, self.start(self.noise)
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

        Its mean over levels is the diffusion loss at weight one. with_code: False denoises with the null code. code:
        used in place of the encoder's.
        """
        if self.posterior is not None and not self.posterior.timed and code is None:
            code = self.posterior(batch.x)
        positions = ((k + batch.random.stratified(len(batch))) / levels for k in range(levels))
        return torch.stack([self.loss_at(batch, position, with_code, code)[0] for position in positions], 1)

    def loss_at(
        self, batch: Batch, position: Time, with_code: bool = True, code: Code | None = None
    ) -> tuple[PerExample, Data, Time]:
        """The diffusion loss at one log-SNR for each example, x_t / alpha there, and that log-SNR.

        position: (B,) in [0, 1] between the log-SNRs of t = 0 and t = 1; uniform ones give the loss as their mean.
        """
        x, draws = batch.x, batch.random
        start, end = self.log_snr_ends(x.device)
        t = self.noise.time(start + (end - start) * position)
        log_snr, eps = self.noise.log_snr(t), draws.normal(*x.shape)
        x_t = self.noise.add(x, eps, t)
        _, z = self.code(x, log_snr, draws, code)
        prediction = self.denoiser.given(batch.covariate)(x_t, t, z if with_code else None)
        nats = terms.denoising(eps, prediction, start - end)
        return nats, x_t / expand(prediction.alpha, x), log_snr

    def log_snr_ends(self, device: torch.device) -> Tensor:
        """log-SNR at t = 0 and at t = 1; (2,)."""
        return self.noise.log_snr(torch.tensor([0.0, 1.0], device=device))

    @torch.no_grad()
    def decode(self, z: Given, n: int, draws: Draws, sampling: Sampling = USUAL, x_1: Data | None = None) -> Data:
        if z is None and self.posterior is not None and not self.drop:
            raise UserError("this model was trained with code.drop=0, so it cannot decode without a code; give it one")
        mean, std = self._start(z, n)
        x_1 = mean + std * (draws.normal(n, *self.shape) if x_1 is None else x_1)
        x = sample(self.conditioned(z, n), self.noise, x_1, sampling.step, sampling.times(self.noise), draws)
        return x.clamp(-1, 1) if self.bins is not None else x

    @torch.no_grad()
    def invert(self, x: Data, z: CodePath | None, steps: int = 100) -> Data:
        """x (B, *shape) -> the standard normal x_1 from which this code decodes x."""
        alpha, _ = self.noise.scales(torch.zeros(len(x), device=x.device))
        x_0 = expand(alpha, x) * x
        mean, std = self._start(z, len(x))
        return (invert(self.conditioned(z, len(x)), self.noise, x_0, steps) - mean) / std

    def conditioned(self, z: Given, n: int) -> Callable[[Data, Time], Prediction]:
        """The denoiser of n examples with its code bound; UserError for codes of the wrong size."""
        if z is None or callable(z):
            return lambda x_t, t: self.denoiser(x_t, t, None if z is None else z(t))
        dim = 0 if self.posterior is None else self.posterior.dim
        if tuple(z.shape) != (n, dim):
            raise UserError(f"expected codes of shape ({n}, {dim}), got {tuple(z.shape)}")
        return lambda x_t, t: self.denoiser(x_t, t, z)

    def code(
        self, x: Data, log_snr: Time, draws: Draws, given: Code | None = None
    ) -> tuple[Code | None, CodeVector | None]:
        """q(z | x) at a noise level, or `given` in its place, and a draw of z; (None, None) for a model without a
        code."""
        if self.posterior is None:
            return None, None
        code = self.posterior(x, log_snr) if given is None else given
        return code, code.sample(draws.normal(*code.mean.shape))

    def _start(self, z: Given, n: int) -> tuple[Tensor, Tensor]:
        one = torch.ones(n, device=next(self.denoiser.parameters()).device)
        return self.begin(self.noise, z(one) if callable(z) else z)
