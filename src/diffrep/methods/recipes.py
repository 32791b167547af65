"""Methods with diffusion, as recipes of parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from diffrep.codes.priors import StandardNormal
from diffrep.data.views import Split, View
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood, semantic, uniform
from diffrep.denoising.start import Start
from diffrep.errors import UserError
from diffrep.methods.parts import Parts
from diffrep.models.base import Model
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective, Term
from diffrep.models.loss_weights import Constant, Weight
from diffrep.models.step_terms import (
    contrast_views,
    denoise,
    fool,
    in_steps,
    l1,
    mmd,
    prior,
    rate,
    reconstruct,
    slice_score,
)

MATCHED = 10.0  # weight of the MMD where none is given


def ddpm(parts: Parts) -> Model:
    return _diffusion(parts, parts.denoiser("vp"), {"denoising": denoise}, parts.levels(uniform))


def dsm(parts: Parts) -> Model:
    return _diffusion(parts, parts.denoiser("ve"), {"denoising": denoise}, parts.levels(uniform))


def ssm(parts: Parts) -> Model:
    model = _diffusion(parts, parts.denoiser("ve"), {"sliced": slice_score}, parts.levels(uniform))
    model.networks = []  # what is differentiated twice can neither be compiled nor gathered by modules
    return model


def drl(parts: Parts, time: bool = False) -> Model:
    code = parts.settings.code
    return _diffusion(
        parts,
        parts.denoiser("ve", code=True, coarse=True),
        {"denoising": denoise, **_code_terms(parts)},
        parts.coarse_levels(),
        Coding(parts.deterministic(time), None if time else parts.prior_after(), code.drop),
        weights=_code_weights(parts),
    )


def tdrl(parts: Parts) -> Model:
    return drl(parts, time=True)


def vdrl(parts: Parts, time: bool = False) -> Model:
    rate_weight = parts.rate_weight(parts.held)
    return _diffusion(
        parts,
        parts.denoiser("ve", code=True, coarse=True),
        {"denoising": denoise, "rate": rate, **_code_terms(parts)},
        parts.coarse_levels(),
        Coding(
            parts.random(time),
            parts.prior("normal" if time else "afterwards"),
            parts.settings.code.drop,
            lag=parts.lag(rate_weight),
        ),
        weights={"rate": rate_weight, **_code_weights(parts)},
    )


def tvdrl(parts: Parts) -> Model:
    return vdrl(parts, time=True)


def vdm(parts: Parts) -> Model:
    denoiser, start = parts.denoiser(_bound_noise(parts)), parts.start()
    return _diffusion(parts, denoiser, _bound_terms(parts, denoiser, start), _bound_levels(parts), start=start)


def vae_vdm(parts: Parts) -> Model:
    denoiser, start = parts.denoiser(_bound_noise(parts), code=True), parts.start(code=True)
    rate_weight = parts.rate_weight(parts.held)
    return _diffusion(
        parts,
        denoiser,
        {**_bound_terms(parts, denoiser, start), "rate": rate, **_code_terms(parts)},
        _bound_levels(parts, alone=parts.settings.code.detail != "decoder"),
        Coding(
            parts.random(),
            parts.prior("afterwards"),
            parts.settings.code.drop,
            gate=parts.gate(likelihood, "coarse" if parts.settings.detail == "auto" else parts.settings.detail),
            lag=parts.lag(rate_weight),
        ),
        weights={"rate": rate_weight, **_code_weights(parts)},
        start=start,
    )


def adversarial(parts: Parts) -> Model:
    terms_ = {"denoising": denoise, "fool": fool}
    return _diffusion(parts, parts.denoiser("ve"), terms_, parts.levels(uniform), critic=parts.critic())


def adversarial_drl(parts: Parts) -> Model:
    return _diffusion(
        parts,
        parts.denoiser("ve", code=True),
        {"denoising": denoise, "fool": fool},
        parts.levels(uniform),
        Coding(parts.deterministic(), parts.prior_after(), parts.settings.code.drop),
        critic=parts.critic(),
    )


def diffae(parts: Parts) -> Model:
    return _diffusion(
        parts,
        parts.denoiser("vp", code=True, coarse=True),
        {"denoising": denoise, **_code_terms(parts)},
        parts.coarse_levels(),
        Coding(parts.deterministic(), parts.prior_after("diffusion"), parts.settings.code.drop),
        weights=_code_weights(parts),
    )


def infodiffusion(parts: Parts) -> Model:
    return _diffusion(
        parts,
        parts.denoiser("vp", code=True),
        {"denoising": denoise, "mmd": mmd},
        parts.levels(uniform),
        Coding(parts.gaussian(), StandardNormal(parts.code_dim), parts.settings.code.drop),
        weights={"mmd": Constant(parts.settings.code.mmd or MATCHED)},
    )


def pdae(parts: Parts) -> Model:
    return _diffusion(
        parts,
        parts.filled("vp"),
        {"denoising": denoise},
        parts.levels(semantic),
        Coding(parts.deterministic(), parts.prior_after(), drop=0.5),  # half train the decoder without a code
    )


def soda(parts: Parts) -> Model:
    """x denoised from the code of a view of it (Hudson et al. 2023, Section 3)."""
    return _diffusion(
        parts,
        parts.denoiser("cosine", code=True, coarse=True),
        {"denoising": denoise},
        parts.coarse_levels(),
        _of_a_view(parts, *parts.view_or_split()),
    )


def soda_simclr(parts: Parts) -> Model:
    """SODA, whose code is compared with that of a second view of the same x by SimCLR's loss."""
    views = parts.settings.views
    return _diffusion(
        parts,
        parts.denoiser("cosine", code=True, coarse=True),
        {"denoising": denoise, "contrast": contrast_views},
        parts.coarse_levels(),
        replace(_of_a_view(parts, parts.view()), head=parts.head(), denoise_every=views.denoise_every),
        weights={"contrast": Constant(views.contrast)},
    )


def _of_a_view(parts: Parts, view: View | None, split: Split | None = None) -> Coding:
    return Coding(parts.deterministic(), parts.prior_after(), parts.settings.code.drop, view, split)


def _diffusion(
    parts: Parts,
    denoiser: Denoiser,
    terms_: Mapping[str, Term],
    levels: Levels,
    coding: Coding | None = None,
    weights: Mapping[str, Weight] | None = None,
    start: Start | None = None,
    critic: nn.Module | None = None,
) -> DiffusionModel:
    """The model of these terms, the decoder's loss first among them, with what settings ask of every method."""
    annealed = parts.decoder_weight()
    first = {} if annealed is None else {next(iter(terms_)): annealed}
    if coding is not None and coding.gate is None:
        coding = replace(coding, gate=parts.gate(levels.looks))
    objective = Objective(terms_, levels, {**(weights or {}), **first})
    return DiffusionModel(
        parts.facts.shape, parts.facts.bins, denoiser, objective, coding, start, parts.begin(), critic
    )


def _bound_terms(parts: Parts, denoiser: Denoiser, start: Start) -> Mapping[str, Term]:
    """The terms of the bound; prior and reconstruction only where they are learned, since otherwise they are
    constant."""
    steps = parts.settings.noise.steps
    diffusion: dict[str, Term] = {"diffusion": denoise if steps is None else in_steps(steps)}
    ends: dict[str, tuple[Term, bool]] = {
        "prior": (prior, denoiser.noise.learns_ends or start.learned),
        "reconstruction": (reconstruct, denoiser.noise.learns_ends),
    }
    return diffusion | {name: term for name, (term, learned) in ends.items() if learned}


def _bound_noise(parts: Parts) -> str:
    """learned; linear for a finite chain, whose bound itself depends on gamma between its ends."""
    noise = parts.settings.noise
    if noise.steps is not None and noise.kind == "learned":
        raise UserError("noise.kind=learned is for continuous time; with noise.steps use linear or learned-ends")
    return "learned" if noise.steps is None else "linear"


def _bound_levels(parts: Parts, alone: bool = False) -> Levels:
    """The weight of the likelihood; for a finite chain it is inside the term, and times lie on a grid.

    alone: ignore the level of detail of the settings, which is then that of the code alone.
    """
    steps = parts.settings.noise.steps
    return parts.levels(likelihood, "auto" if alone else None) if steps is None else Levels(uniform, steps=steps)


def _code_terms(parts: Parts) -> dict[str, Term]:
    code = parts.settings.code
    choices: dict[str, tuple[Term, float]] = {"l1": (l1, code.l1), "mmd": (mmd, code.mmd)}
    return {name: term for name, (term, weight) in choices.items() if weight}


def _code_weights(parts: Parts) -> dict[str, Weight]:
    code = parts.settings.code
    return {name: Constant(weight) for name, weight in (("l1", code.l1), ("mmd", code.mmd)) if weight}
