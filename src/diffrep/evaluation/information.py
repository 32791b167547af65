"""The information profile: by how many nats a code lowers the decoder's loss at each noise level."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffrep.codes.posteriors import Code
from diffrep.data import Examples
from diffrep.data.batches import batches
from diffrep.denoising import terms
from diffrep.errors import UserError
from diffrep.evaluation import mutual_information as mutual
from diffrep.evaluation.bound import active_units, effective_rank
from diffrep.evaluation.encoding import encode_split
from diffrep.evaluation.mutual_information import Information
from diffrep.models.base import Model, evaluating
from diffrep.models.diffusion_decoder import DiffusionDecoder
from diffrep.shapes import Batch, Data, Draws, PerExample, Time, mean_and_error
from diffrep.threads import in_order

PROTOCOL = "profile-3"  # whole split, stratified log-SNRs, both branches on the same x_t; used at most I(x; z)

CodeAt = Callable[[Time], Code]  # t (B,) -> the code of a batch that the decoder gets at t
Progress = Callable[[int], None]  # examples done


@dataclass(frozen=True)
class Profile:
    """I-MMSE: I(x; z) = 1/2 E int |eps - eps_hat(x_t)|^2 - |eps - eps_hat(x_t, z)|^2 d log_snr (Guo et al. 2005).

    gains (N, K): the integrand for each example in K equal cells of log-SNR, nats per unit of log-SNR; negative where
    the code raises the loss. log_snr (K,): centres of the cells, from noise to data. width: of a cell. start_gains
    (N,): nats by which p(x_1 | z) lowers the prior loss against p(x_1), 0 for a start without the code. rates (N,):
    rate of each code in nats, None where it is not finite (a deterministic or a time-conditioned code).

    With ideal denoisers the integral is I(x; z) without the log-SNRs beyond the ends of the process; an ideal start
    contributes those beyond the noise end. With a trained decoder it is the loss with the null code minus the loss with
    the code. So a decoder that was trained on too few examples without a code makes the code look better than it is.
    """

    log_snr: Tensor
    gains: Tensor
    width: float
    start_gains: PerExample
    rates: PerExample | None
    active_units: int | None = None
    effective_rank: float | None = None

    @property
    def nats_per_log_snr(self) -> Tensor:
        """(K,) mean over the examples."""
        return self.gains.double().mean(0)

    @property
    def se(self) -> Tensor:
        """(K,) standard errors of the means."""
        return self.gains.double().std(0) / math.sqrt(len(self.gains))

    @property
    def carried(self) -> PerExample:
        """(N,) nats that the code of each example carries: the integral of its gains plus the gain of the start."""
        return self.gains.double().sum(1) * self.width + self.start_gains.double()

    def integral(self) -> tuple[float, float]:
        """Nats that the code carries for this decoder, and the standard error."""
        return mean_and_error(self.carried)

    @property
    def rate_nats(self) -> float:
        """Mean rate; infinite where it is not finite."""
        return math.inf if self.rates is None else mean_and_error(self.rates)[0]

    def used_share(self, most: PerExample | None = None) -> tuple[float, float]:
        """integral / rate, the used share of the rate, and its standard error (delta method).

        most (N,): nats that bound I(x; z); an integral above their mean counts as that mean, see `excess`. 0 where the
        rate is 0 or infinite.
        """
        if self.rates is None or self.rate_nats == 0:
            return 0.0, 0.0
        used = self.carried if most is None or self.carried.mean() <= most.double().mean() else most.double()
        share = float(used.mean()) / self.rate_nats
        return share, mean_and_error(used - share * self.rates.double())[1] / self.rate_nats

    def excess(self, most: PerExample) -> tuple[float, float]:
        """Nats by which the integral exceeds the mean of `most` (N,), and the error; 0 where it does not.

        No code carries more than I(x; z), so the excess shows that the decoder without the code is worse than it could
        be.
        """
        mean, error = mean_and_error(self.carried - most.double())
        return (mean, error) if mean > 0 else (0.0, 0.0)

    @property
    def peak(self) -> float:
        """The log-SNR of the cell where the code carries most."""
        return float(self.log_snr[self.nats_per_log_snr.argmax()])


@torch.no_grad()
def profile(
    model: Model,
    examples: Examples,
    levels: int = 32,
    batch: int = 250,
    seed: int = 0,
    progress: Progress = lambda done: None,
) -> Profile:
    """The information profile over a split: each example is denoised once in each of `levels` cells, with new noise.

    A time-conditioned code is taken at the time of each cell. UserError: no code, no diffusion decoder, or a model
    trained without code dropout, whose null code is not trained.
    """
    decoder, parts = profiled(model), []

    def of_batch(chunk: Batch) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
        """Gains, means of the codes, rates, gains at the start; None for what this code has not."""
        code_at, means, rates = _own_code(model, chunk.x), None, None
        gains = _gains(decoder, chunk, levels, [code_at])[0]
        if not model.timed:
            code = code_at(torch.zeros(len(chunk), device=chunk.x.device))
            means = code.mean
            if decoder.prior is not None and decoder.no_bound is None:
                rates = decoder.prior.rate(code, code.sample(chunk.random.normal(*means.shape)))
        return gains, means, rates, _start_gains(decoder, chunk, code_at)

    with evaluating(model) as device:
        for chunk, made in in_order(of_batch, batches(examples, batch, seed, device), device):
            parts.append([None if tensor is None else tensor.cpu() for tensor in made])
            progress(len(chunk))
    gains, means, rates, start_gains = ([t for t in of_all if t is not None] for of_all in zip(*parts, strict=True))
    profile = _profile(decoder, gains, start_gains, rates)
    if not means:
        return profile
    codes = torch.cat(means)
    return replace(profile, active_units=active_units(codes), effective_rank=effective_rank(codes))


@torch.no_grad()
def profile_over_times(
    model: Model,
    examples: Examples,
    times: Sequence[float],
    levels: int = 32,
    batch: int = 250,
    seed: int = 0,
    progress: Progress = lambda done: None,
) -> list[Profile]:
    """One profile for each of `times`: the decoder gets a time-conditioned code of that t at every noise level.

    All have the same x_t. The decoder was trained with the code of its own noise level, so the code of a distant one
    may raise the loss. UserError as for `profile`, and for a code that does not depend on t.
    """
    decoder = profiled(model)
    if not model.timed:
        raise UserError(
            "this code is the same at all t: use `profile`; train tdrl or tvdrl for a code that depends on t."
        )
    gains = []

    def of_batch(chunk: Batch) -> Tensor:
        return _gains(decoder, chunk, levels, [_code_of(model, chunk.x, float(t)) for t in times])

    with evaluating(model) as device:
        for chunk, of_chunk in in_order(of_batch, batches(examples, batch, seed, device), device):
            gains.append(of_chunk.cpu())
            progress(len(chunk))
    each = torch.cat(gains, 1)
    none = torch.zeros(each.shape[1])  # no chain of such a code starts from p(x_1 | z)
    return [_profile(decoder, [of_time], [none], []) for of_time in each]


@torch.no_grad()
def mutual_information(
    model: Model,
    examples: Examples,
    codes_per_example: int = 1,
    t: float | None = None,
    batch: int = 500,
    seed: int = 0,
) -> Information:
    """Bounds of I(x; z) over a split, from the code alone (`mutual.mutual_information`); t for a time-conditioned code.

    UserError where there is no code, or the code is deterministic, so that I(x; z) is not finite.
    """
    return mutual.mutual_information(encode_split(model, examples, t, batch), Draws.of(seed), codes_per_example)


@torch.no_grad()
def denoisings(
    model: Model, x: Data, log_snr: Tensor, draws: Draws, covariate: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, x_hat(x_t, null) and x_hat(x_t, z) of x (B, *shape) at K log-SNRs, (K, B, *shape) each; z the mean code.

    All noise levels share one eps; x_t is divided by sqrt(alpha^2 + sigma^2), as for the network.
    covariate (B, K): see `Model.reconstruct`.
    """
    decoder = profiled(model).given(covariate)
    with evaluating(model):
        eps, code_at = draws.normal(*x.shape), _own_code(model, x)
        pictures: list[tuple[Tensor, Tensor, Tensor]] = []
        for level in log_snr.to(x):
            t = decoder.noise.time(level.expand(len(x)))
            x_t = decoder.noise.add(x, eps, t)
            alpha, sigma = (float(scale[0]) for scale in decoder.noise.scales(t))
            without, given = (decoder.denoiser(x_t, t, z).x for z in (None, code_at(t).mean))
            pictures.append((x_t / math.hypot(alpha, sigma), without, given))
    x_t, without, given = (torch.stack(kind) for kind in zip(*pictures, strict=True))
    return x_t, without, given


def profiled(model: Model) -> DiffusionDecoder:
    """The model's decoder, if it denoises with and without a code; UserError otherwise."""
    reason = not_profiled(model)
    if reason is not None:
        raise UserError(reason)
    return model.needs_diffusion("it has no noise levels to profile")


def not_profiled(model: Model) -> str | None:
    """Why the code of a model has no profile, in one sentence; None where it has one."""
    if not model.has_code:
        return "this method has no code to profile; train one that has (`diffrep methods` lists them)."
    if model.diffusion is None:
        return "this method has no noise levels to profile; train a diffusion decoder, such as vae-vdm."
    if not model.diffusion.drop:
        return (
            "a profile compares denoising with and without the code, and this model cannot do the latter: it was"
            " trained with "
            "code.drop=0; train again with --set code.drop=0.1."
        )
    return None


def _own_code(model: Model, x: Data) -> CodeAt:
    """The model's code at t; encoded once where it is the same at all t."""
    if model.timed:
        return lambda t: model.encode(x, t)
    code = model.encode(x)
    return lambda t: code


def _code_of(model: Model, x: Data, t: float) -> CodeAt:
    code = model.encode(x, t)
    return lambda t: code


def _gains(decoder: DiffusionDecoder, batch: Batch, levels: int, codes: Sequence[CodeAt]) -> Tensor:
    """(codes, B, levels) 1/2 |eps - eps_hat(x_t)|^2 - 1/2 |eps - eps_hat(x_t, z)|^2, nats per unit of log-SNR.

    Both predictions (and all codes) have the same x_t and eps, so the effect of the noise on both cancels. Cells from
    noise to data; within its cell, each example has its own log-SNR.
    """
    x, draws, decoder = batch.x, batch.random, decoder.given(batch.covariate)
    low, high = _ends(decoder)
    gains = []
    for k in range(levels):
        t = decoder.noise.time(low + (high - low) * (k + draws.stratified(len(x))) / levels)
        eps = draws.normal(*x.shape)
        x_t, one = decoder.noise.add(x, eps, t), torch.ones_like(t)
        without = terms.denoising(eps, decoder.denoiser(x_t, t), one)
        given = [code_at(t) for code_at in codes]
        noise = draws.normal(*given[0].mean.shape)
        predictions = (decoder.denoiser(x_t, t, code.sample(noise)) for code in given)
        gains.append(torch.stack([without - terms.denoising(eps, prediction, one) for prediction in predictions]))
    return torch.stack(gains, -1)


def _start_gains(decoder: DiffusionDecoder, batch: Batch, code_at: CodeAt) -> PerExample:
    """KL(q(x_1 | x) || p(x_1)) - KL(q(x_1 | x) || p(x_1 | z)), (B,) nats."""
    x, noise, start = batch.x, decoder.noise, decoder.start
    code = code_at(torch.ones(len(x), device=x.device))
    z = code.sample(batch.random.normal(*code.mean.shape))
    return noise.prior_loss(x, start(noise)) - noise.prior_loss(x, start(noise, z))


def _ends(decoder: DiffusionDecoder) -> Tensor:
    """The log-SNR at noise and at data, (2,)."""
    device = next(decoder.denoiser.parameters()).device
    return decoder.noise.log_snr(torch.tensor([1.0, 0.0], device=device)).detach()


def _profile(decoder: DiffusionDecoder, gains: list[Tensor], start_gains: list[Tensor], rates: list[Tensor]) -> Profile:
    whole = torch.cat(gains)
    low, high = _ends(decoder).cpu().double()
    width = (high - low) / whole.shape[1]
    centres = low + width * (torch.arange(whole.shape[1]) + 0.5)
    return Profile(centres, whole, float(width), torch.cat(start_gains), torch.cat(rates) if rates else None)
