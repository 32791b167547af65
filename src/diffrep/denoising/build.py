"""Noise, level of detail and parameterisation from their settings: a new one is a row here and a word in config.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffrep.config import DecoderSettings, NoiseSettings, chosen
from diffrep.data.mixture import groups_of
from diffrep.data.places import GROUPS
from diffrep.denoising import noise as noises
from diffrep.denoising import parameterisations
from diffrep.denoising.detail import Density, balanced, band, coarse, fine, high_noise, likelihood, low_noise, uniform
from diffrep.denoising.observation import Observation
from diffrep.denoising.start import GaussianStart, MatchedStart, StandardStart, Start
from diffrep.errors import UserError, unknown
from diffrep.shapes import Facts, Mixture, Shape

CLEAN = -13.3  # gamma_0 of continuous data, as VDM has it

DETAILS: dict[str, Callable[[int], Density]] = {  # name -> (numbers in an example -> density)
    "coarse": coarse,
    "balanced": balanced,
    "fine": fine,
    "uniform": lambda dims: uniform,
    "likelihood": lambda dims: likelihood,
    "high-noise": lambda dims: high_noise,
    "low-noise": lambda dims: low_noise,
}


def noise(settings: NoiseSettings, own: str, bins: int | None) -> noises.Noise:
    """The forward process. own: that of the method's paper. bins: grey levels of the data, None if continuous."""
    s = settings

    def gamma_0() -> float:
        """Read by the processes that use it, so that the others warn of it."""
        if s.gamma_0 is not None:
            return s.gamma_0
        return CLEAN if bins is None else clean_end(s.sigma_0, bins)

    make: dict[str, Callable[[], noises.Noise]] = {
        "ve": lambda: noises.VE(s.sigma_min, s.sigma_max),
        "vp": lambda: noises.VP(s.beta_min, s.beta_max),
        "subvp": lambda: noises.SubVP(s.beta_min, s.beta_max),
        "cosine": lambda: noises.Cosine(-15.0, -gamma_0()),
        "linear": lambda: noises.LinearGamma(gamma_0(), s.gamma_1),
        "learned-ends": lambda: noises.LinearGamma(gamma_0(), s.gamma_1, learned=True),
        "learned": lambda: noises.LearnedGamma(gamma_0(), s.gamma_1),
    }
    return make[chosen(s.kind, own)]()


def clean_end(sigma_0: float, bins: int) -> float:
    """gamma_0 with sigma_0 / alpha_0 in grey levels: a sixth of one is VDM's -13.3 for 256 of them."""
    return 2 * math.log(sigma_0 * 2 / bins)


def parameterisation(
    predicts: str, decoder: DecoderSettings, facts: Facts, observed: bool = False
) -> parameterisations.Parameterisation:
    """The meaning of the network's output. observed: x_t is combined with an estimate of x from the code."""
    shape, bins, counted = facts.shape, facts.bins, facts.counted
    name = chosen(predicts, "edm" if bins is None else "marginal")
    if name == "marginal":
        if bins is None:
            raise UserError("predicts=marginal needs grey levels and this data is continuous; use predicts=edm")
        if decoder.mixture:
            return _mixture(facts, bins, decoder.by_place)
        if decoder.by_place:
            return parameterisations.MarginalByPlace(shape, bins, shape[0] * GROUPS, counted.places)
        return parameterisations.Marginal(shape[0], bins, counted.histogram)
    std = 1.0 if len(shape) == 1 else 0.5  # tables are standardised
    make: dict[str, Callable[[], parameterisations.Parameterisation]] = {
        "eps": parameterisations.Eps,
        "x": parameterisations.X,
        "v": parameterisations.V,
        "score": parameterisations.Score,
        "edm": lambda: parameterisations.EDM(std, shown=observed),
    }
    return make[name]()


def _mixture(facts: Facts, bins: int, by_place: bool) -> parameterisations.MarginalMixture:
    """Histograms of latent classes; by_place: of each group of places, else of each channel."""
    shape, counted = facts.shape, facts.counted
    mixed = counted.mixture
    if by_place:
        groups = shape[0] * groups_of(shape, facts.latent)
        return parameterisations.MarginalMixture(shape, bins, groups, facts.latent, mixed)
    if mixed is not None and counted.histogram is not None:
        channel = torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
        one = facts.latent == 1  # its groups have shares, not counts
        counts = counted.histogram[None] if one else mixed.counts.unflatten(1, (shape[0], -1)).sum(2)
        mixed = Mixture(channel, mixed.weights, counts)
    return parameterisations.MarginalMixture(shape, bins, shape[0], facts.latent, mixed)


def observation(
    settings: DecoderSettings,
    shape: Shape,
    code_dim: int,
    parameterisation: parameterisations.Parameterisation,
    patch: int = 1,
    covariates: int = 0,
) -> Observation | None:
    """The network that estimates x from the code, a generator of half the decoder's width.

    None where the parameterisation cannot use an estimate; a UserError if the settings ask for one there.
    """
    if parameterisation.fuses:
        return Observation(shape, code_dim, max(4, settings.width // 2), settings.code_until, patch, covariates)
    if settings.observe_code:
        raise UserError(
            "decoder.observe_code=true needs predicts=edm or predicts=marginal, got another choice of predicts; leave"
            " one of them out"
        )
    return None


def start(settings: DecoderSettings, facts: Facts, code_dim: int) -> Start:
    """p(x_1 | z), from which sampling starts; code_dim: 0 where it does not depend on a code."""
    if settings.start == "normal":
        return StandardStart()
    if settings.start == "matched":
        mean, variance = _moments_by_place(facts)
        return MatchedStart(mean, variance, kept=True)
    return GaussianStart(facts.shape, code_dim, max(4, settings.width // 2))


def matched(facts: Facts) -> MatchedStart | None:
    """The Gaussian with the moments of the data's channels at t = 1; None where they are not counted."""
    return None if facts.moments is None else MatchedStart(*_of_channels(facts.moments, facts.shape))


def _moments_by_place(facts: Facts) -> tuple[Tensor, Tensor]:
    """Mean and variance of each number of x, (*shape): those of its group of places; else of its channel. 0 and 1 where
    nothing is counted, to be loaded."""
    if facts.counted.places is not None:
        group, histograms = facts.counted.places
        share = histograms / histograms.sum(1, keepdim=True)
        level = (2 * torch.arange(share.shape[1], dtype=share.dtype) + 1) / share.shape[1] - 1
        mean = share @ level
        variance = share @ level**2 - mean**2
        return mean.float()[group], variance.float()[group]
    if facts.moments is None:
        return torch.zeros(facts.shape), torch.ones(facts.shape)
    mean, variance = _of_channels(facts.moments, facts.shape)
    return mean.expand(facts.shape).contiguous(), variance.expand(facts.shape).contiguous()


def _of_channels(moments: tuple[Tensor, Tensor], shape: Shape) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) as (C, 1, ...)."""
    mean, variance = (moment.reshape(shape[0], *[1] * (len(shape) - 1)) for moment in moments)
    return mean, variance


def density(name: str, shape: Shape) -> Density:
    """The level of detail of that name, or of a band:low:high in log-SNR."""
    if name.startswith("band:"):
        try:
            low, high = (float(number) for number in name.split(":")[1:])
            return band(low, high)
        except ValueError as error:
            raise UserError(f"expected a band as band:low:high with low < high in log-SNR, got {name!r}") from error
    if name not in DETAILS:
        raise unknown("level of detail", name, [*DETAILS, "band:low:high"])
    return DETAILS[name](math.prod(shape))
