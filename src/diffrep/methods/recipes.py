"""The methods as compositions of parts, and the one table of their names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from diffrep.codes.priors import StandardNormal
from diffrep.config import Settings
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood, semantic, uniform
from diffrep.denoising.start import Start
from diffrep.errors import UserError, unknown
from diffrep.methods import baselines
from diffrep.methods.parts import Facts, Parts
from diffrep.methods.unused_settings import unheeded, watched
from diffrep.models.base import Model
from diffrep.models.diffusion import DiffusionModel, Term
from diffrep.models.loss_weights import Constant, Weight
from diffrep.models.step_terms import denoise, fool, in_steps, l1, mmd, prior, rate, reconstruct, slice_score

BUILDING = ("decoder", "encoder", "code", "prior", "anneal", "views", "noise", "detail", "predicts")  # of a model
MATCHED = 10.0  # weight of the MMD where none is given
HELD = 12.0  # nats: the rate that methods with a Gaussian code hold where no price is given


def ddpm(parts: Parts) -> Model:
    return _diffusion(parts, parts.denoiser("vp"), {"denoising": denoise}, parts.levels(uniform))


def dsm(parts: Parts) -> Model:
    return _diffusion(parts, parts.denoiser("ve"), {"denoising": denoise}, parts.levels(uniform))


def ssm(parts: Parts) -> Model:
    return _diffusion(parts, parts.denoiser("ve"), {"sliced": slice_score}, parts.levels(uniform))


def drl(parts: Parts, time: bool = False) -> Model:
    code = parts.settings.code
    return _diffusion(
        parts,
        parts.denoiser("ve", code=True),
        {"denoising": denoise, **_code_terms(parts)},
        parts.levels(uniform),
        posterior=parts.deterministic(time),
        prior=None if time else parts.prior_after(),
        weights=_code_weights(parts),
        drop=code.drop,
    )


def tdrl(parts: Parts) -> Model:
    return drl(parts, time=True)


def vdrl(parts: Parts, time: bool = False) -> Model:
    price = parts.rate_weight(HELD)
    return _diffusion(
        parts,
        parts.denoiser("ve", code=True),
        {"denoising": denoise, "rate": rate, **_code_terms(parts)},
        parts.levels(uniform),
        posterior=parts.random(time),
        prior=parts.prior(),
        weights={"rate": price, **_code_weights(parts)},
        drop=parts.settings.code.drop,
        lag=parts.lag(price),
    )


def tvdrl(parts: Parts) -> Model:
    return vdrl(parts, time=True)


def vdm(parts: Parts) -> Model:
    denoiser, start = parts.denoiser(_bound_noise(parts)), parts.start()
    return _diffusion(parts, denoiser, _bound_terms(parts, denoiser, start), _bound_levels(parts), start=start)


def vae_vdm(parts: Parts) -> Model:
    denoiser, start = parts.denoiser(_bound_noise(parts), code=True), parts.start(code=True)
    price = parts.rate_weight(HELD)
    return _diffusion(
        parts,
        denoiser,
        {**_bound_terms(parts, denoiser, start), "rate": rate, **_code_terms(parts)},
        _bound_levels(parts),
        posterior=parts.random(),
        prior=parts.prior("mixture"),
        weights={"rate": price, **_code_weights(parts)},
        drop=parts.settings.code.drop,
        lag=parts.lag(price),
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
        posterior=parts.deterministic(),
        prior=parts.prior_after(),
        drop=parts.settings.code.drop,
        critic=parts.critic(),
    )


def diffae(parts: Parts) -> Model:
    return _diffusion(
        parts,
        parts.denoiser("vp", code=True),
        {"denoising": denoise, **_code_terms(parts)},
        parts.levels(uniform),
        posterior=parts.deterministic(),
        prior=parts.prior_after("diffusion"),
        weights=_code_weights(parts),
        drop=parts.settings.code.drop,
    )


def infodiffusion(parts: Parts) -> Model:
    return _diffusion(
        parts,
        parts.denoiser("vp", code=True),
        {"denoising": denoise, "mmd": mmd},
        parts.levels(uniform),
        posterior=parts.gaussian(),
        prior=StandardNormal(parts.settings.code.dim),
        weights={"mmd": Constant(parts.settings.code.mmd or MATCHED)},
        drop=parts.settings.code.drop,
    )


def pdae(parts: Parts) -> Model:
    return _diffusion(
        parts,
        parts.filled("vp"),
        {"denoising": denoise},
        parts.levels(semantic),
        posterior=parts.deterministic(),
        prior=parts.prior_after(),
        drop=0.5,  # half of the examples train the decoder without a code
    )


def soda(parts: Parts) -> Model:
    return _diffusion(
        parts,
        parts.denoiser("cosine", code=True),
        {"denoising": denoise},
        parts.levels(uniform),
        posterior=parts.deterministic(),
        prior=parts.prior_after(),
        drop=parts.settings.code.drop,
        view=parts.view(),
    )


def _diffusion(
    parts: Parts,
    denoiser: Denoiser,
    terms_: Mapping[str, Term],
    levels: Levels,
    weights: Mapping[str, Weight] | None = None,
    **rest,
) -> DiffusionModel:
    """The model of these terms, the decoder's loss first among them."""
    annealed = parts.decoder_weight()
    first = {} if annealed is None else {next(iter(terms_)): annealed}
    return DiffusionModel(
        parts.facts.shape, parts.facts.bins, denoiser, terms_, levels, weights={**(weights or {}), **first}, **rest
    )


def _bound_terms(parts: Parts, denoiser: Denoiser, start: Start) -> Mapping[str, Term]:
    """The bound; its ends enter the loss only where they are learned, since otherwise they are constants."""
    steps = parts.settings.noise.steps
    diffusion: dict[str, Term] = {"diffusion": denoise if steps is None else in_steps(steps)}
    ends: dict[str, tuple[Term, bool]] = {
        "prior": (prior, denoiser.noise.learns_ends or start.learned),
        "reconstruction": (reconstruct, denoiser.noise.learns_ends),
    }
    return diffusion | {name: term for name, (term, learned) in ends.items() if learned}


def _bound_noise(parts: Parts) -> str:
    """Learned inside; linear for a finite chain, whose bound depends on the inside, not its variance alone."""
    noise = parts.settings.noise
    if noise.steps is not None and noise.kind == "learned":
        raise UserError("noise.kind=learned is for continuous time; with noise.steps use linear or learned-ends")
    return "learned" if noise.steps is None else "linear"


def _bound_levels(parts: Parts) -> Levels:
    """Likelihood weights at any t; on the grid of a finite chain its term carries them."""
    steps = parts.settings.noise.steps
    return parts.levels(likelihood) if steps is None else Levels(uniform, steps=steps)


def _code_terms(parts: Parts) -> dict[str, Term]:
    code = parts.settings.code
    choices: dict[str, tuple[Term, float]] = {"l1": (l1, code.l1), "mmd": (mmd, code.mmd)}
    return {name: term for name, (term, weight) in choices.items() if weight}


def _code_weights(parts: Parts) -> dict[str, Weight]:
    code = parts.settings.code
    return {name: Constant(weight) for name, weight in (("l1", code.l1), ("mmd", code.mmd)) if weight}


@dataclass(frozen=True)
class Method:
    """A recipe, what it does in one line, where it was published; twin: the method that is the same without a code."""

    build: Callable[[Parts], Model]
    summary: str
    paper: str
    twin: str | None = None


METHODS: dict[str, Method] = {
    "ddpm": Method(ddpm, "diffusion model, no code: VP noise, plain loss on the noise", "Ho et al. 2020, 2006.11239"),
    "dsm": Method(
        dsm,
        "denoising score matching, no code; VE, VP or sub-VP by noise.kind",
        "Vincent 2011; Song et al. 2021, 2011.13456",
    ),
    "ssm": Method(ssm, "sliced score matching with variance reduction, no code", "Song et al. 2019, 1905.07088"),
    "drl": Method(
        drl,
        "deterministic code of x for a score model; detail sets what it holds",
        "Abstreiter et al. 2021, 2105.14257",
        twin="dsm",
    ),
    "vdrl": Method(
        vdrl,
        "Gaussian code of x for a score model, priced by its rate",
        "Abstreiter et al. 2021, 2105.14257",
        twin="dsm",
    ),
    "tdrl": Method(
        tdrl,
        "deterministic code of x and t: one for each noise level",
        "Abstreiter et al. 2021; Mittal et al. 2022, 2210.13774",
        twin="dsm",
    ),
    "tvdrl": Method(
        tvdrl, "Gaussian code of x and t", "Abstreiter et al. 2021; Mittal et al. 2022, 2210.13774", twin="dsm"
    ),
    "vdm": Method(
        vdm, "variational diffusion: learned noise, the bound itself as loss", "Kingma et al. 2021, 2107.00630"
    ),
    "vae-vdm": Method(
        vae_vdm,
        "VAE whose decoder is a conditional variational diffusion model",
        "Kingma et al. 2021; Abstreiter et al. 2021",
        twin="vdm",
    ),
    "adversarial": Method(
        adversarial,
        "denoising score matching with a critic on the denoised x",
        "Jolicoeur-Martineau et al. 2021, 2009.05475",
    ),
    "adversarial-drl": Method(
        adversarial_drl,
        "drl with a critic on the denoised x",
        "Abstreiter et al. 2021; Jolicoeur-Martineau et al. 2021",
        twin="adversarial",
    ),
    "diffae": Method(
        diffae,
        "deterministic code for a diffusion decoder, and a latent diffusion prior",
        "Preechakul et al. 2022, 2111.15640",
        twin="ddpm",
    ),
    "infodiffusion": Method(
        infodiffusion,
        "Gaussian code for a diffusion decoder, matched to N(0, I) by MMD",
        "Wang et al. 2023, 2306.08757",
        twin="ddpm",
    ),
    "pdae": Method(
        pdae,
        "code that fills what a diffusion decoder without a code leaves open",
        "Zhang et al. 2022, 2212.12990",
        twin="ddpm",
    ),
    "soda": Method(
        soda,
        "code of one view of x for a decoder that denoises another",
        "Hudson et al. 2023, 2311.17901",
    ),
    "ae": Method(baselines.ae, "autoencoder with the same encoder, no diffusion", "Hinton and Salakhutdinov 2006"),
    "dae": Method(baselines.dae, "denoising autoencoder with the same encoder, no diffusion", "Vincent et al. 2008"),
    "mae": Method(baselines.mae, "masked autoencoder: guesses the hidden patches of x", "He et al. 2022, 2111.06377"),
    "vae": Method(
        baselines.vae,
        "variational autoencoder with the same encoder, no diffusion",
        "Kingma and Welling 2014, 1312.6114",
    ),
    "beta-vae": Method(baselines.beta_vae, "vae whose rate is charged fourfold", "Higgins et al. 2017"),
    "simclr": Method(
        baselines.simclr, "contrast of two views within the batch, no decoder", "Chen et al. 2020, 2002.05709"
    ),
    "vicreg": Method(
        baselines.vicreg,
        "two views alike, features spread and decorrelated, no decoder",
        "Bardes et al. 2022, 2105.04906",
    ),
    "byol": Method(
        baselines.byol,
        "each view foretells a slow copy's code of the other, no decoder",
        "Grill et al. 2020, 2006.07733",
    ),
    "classifier": Method(baselines.classifier, "the same encoder trained on the labels: the ceiling", "Bridle 1990"),
    "random-encoder": Method(baselines.random_encoder, "the same encoder, not trained: the floor", "Saxe et al. 2011"),
}


def method(name: str) -> Method:
    """The method of that name; UserError with the nearest one where there is none."""
    if name not in METHODS:
        raise unknown("method", name, METHODS, f"`diffrep methods` lists all {len(METHODS)}.")
    return METHODS[name]


def build(settings: Settings, facts: Facts) -> Model:
    """The model that the settings describe, for such data; its weights are drawn from the settings' seed.

    UserError: an unknown method, settings that make no model. A setting that has no effect here is warned of by name.
    """
    recipe = method(settings.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        chosen, read = watched(settings)
        try:
            model = recipe.build(Parts(chosen, facts))
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"these settings do not make a model: {error}") from error
    idle = unheeded(settings, read, BUILDING)
    if idle:
        warnings.warn(f"{settings.method} has no use for {', '.join(idle)} here: it changes nothing.", stacklevel=2)
    return model
