"""The methods as compositions of parts, and the one table of their names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from diffrep.baselines import Autoencoder
from diffrep.codes import Posterior
from diffrep.config import Settings
from diffrep.control import Constant, Weight
from diffrep.denoiser import Denoiser
from diffrep.errors import UserError, unknown
from diffrep.heeded import unheeded, watched
from diffrep.levels import Levels, likelihood, uniform
from diffrep.model import DiffusionModel, Model, Term
from diffrep.objectives import denoise, fool, in_steps, l1, mmd, prior, rate, reconstruct, slice_score
from diffrep.parts import Facts, Parts
from diffrep.priors import Prior
from diffrep.starts import Start

BUILDING = ("decoder", "encoder", "code", "prior", "anneal", "noise", "detail", "predicts")  # settings of a model
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
    return _diffusion(
        parts,
        parts.denoiser("ve", code=True),
        {"denoising": denoise, "rate": rate, **_code_terms(parts)},
        parts.levels(uniform),
        posterior=parts.random(time),
        prior=parts.prior(),
        weights={"rate": parts.rate_weight(HELD), **_code_weights(parts)},
        drop=parts.settings.code.drop,
    )


def tvdrl(parts: Parts) -> Model:
    return vdrl(parts, time=True)


def vdm(parts: Parts) -> Model:
    denoiser, start = parts.denoiser(_bound_noise(parts)), parts.start()
    return _diffusion(parts, denoiser, _bound_terms(parts, denoiser, start), _bound_levels(parts), start=start)


def vae_vdm(parts: Parts) -> Model:
    denoiser, start = parts.denoiser(_bound_noise(parts), code=True), parts.start(code=True)
    return _diffusion(
        parts,
        denoiser,
        {**_bound_terms(parts, denoiser, start), "rate": rate, **_code_terms(parts)},
        _bound_levels(parts),
        posterior=parts.random(),
        prior=parts.prior(),
        weights={"rate": parts.rate_weight(HELD), **_code_weights(parts)},
        drop=parts.settings.code.drop,
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


def ae(parts: Parts) -> Model:
    return _autoencoder(parts, parts.deterministic(), parts.prior_after())


def dae(parts: Parts) -> Model:
    return _autoencoder(parts, parts.deterministic(), parts.prior_after(), corrupt=0.5)


def vae(parts: Parts) -> Model:
    if (kind := parts.settings.prior.kind) not in ("auto", "normal"):
        raise UserError(f"vae prices its code against N(0, I), got prior.kind={kind}; leave it out, or train vae-vdm")
    return _autoencoder(parts, parts.random(), parts.prior(), weights={"rate": parts.rate_weight()})


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


def _autoencoder(parts: Parts, posterior: Posterior, prior_: Prior, **rest) -> Autoencoder:
    return Autoencoder(parts.facts.shape, parts.facts.bins, posterior, parts.generator(), prior_, **rest)


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
    "ae": Method(ae, "autoencoder with the same encoder, no diffusion", "Hinton and Salakhutdinov 2006"),
    "dae": Method(dae, "denoising autoencoder with the same encoder, no diffusion", "Vincent et al. 2008"),
    "vae": Method(
        vae, "variational autoencoder with the same encoder, no diffusion", "Kingma and Welling 2014, 1312.6114"
    ),
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
