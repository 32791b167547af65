"""The catalogue: every method by name, importable without torch, and the model that settings describe."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING

from diffrep.errors import UserError, unknown
from diffrep.methods import foreign

if TYPE_CHECKING:
    from diffrep.config import Settings
    from diffrep.methods.parts import Facts, Parts
    from diffrep.models.base import Model

Recipe = Callable[["Parts"], "Model"]
BUILDING = ("decoder", "encoder", "code", "prior", "anneal", "views", "noise", "detail", "predicts")  # of a model


@dataclass(frozen=True)
class Method:
    """A recipe, a summary in one line, its paper, and the abilities of its models.

    noise: the process of the paper, which noise.kind=auto stands for; None for a method that removes no noise.
    has_code: it encodes. decodes: it makes examples. has_bound: it bounds -log p(x). twin: the method that is the same
    without a code.
    """

    recipe: str | Recipe  # parts -> model; module.function of diffrep.methods, or the function
    summary: str
    paper: str
    noise: str | None = None
    has_code: bool = True
    decodes: bool = True
    has_bound: bool = False
    twin: str | None = None

    def as_dict(self) -> dict[str, str | bool | None]:
        """All fields but the recipe, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "recipe"}

    @property
    def build(self) -> Callable[[Parts], Model]:
        """The recipe, imported now: parts -> model."""
        if not isinstance(self.recipe, str):
            return self.recipe
        module, _, function = self.recipe.rpartition(".")
        return getattr(import_module(f"diffrep.methods.{module}"), function)


METHODS: dict[str, Method] = {
    "ddpm": Method(
        "recipes.ddpm",
        "diffusion model, no code: VP noise, plain loss on the noise",
        "Ho et al. 2020, 2006.11239",
        noise="vp",
        has_code=False,
        has_bound=True,
    ),
    "dsm": Method(
        "recipes.dsm",
        "denoising score matching, no code; VE, VP or sub-VP by noise.kind",
        "Vincent 2011; Song et al. 2021, 2011.13456",
        noise="ve",
        has_code=False,
        has_bound=True,
    ),
    "ssm": Method(
        "recipes.ssm",
        "sliced score matching with variance reduction, no code",
        "Song et al. 2019, 1905.07088",
        noise="ve",
        has_code=False,
        has_bound=True,
    ),
    "drl": Method(
        "recipes.drl",
        "deterministic code of x for a score model; detail sets which features it holds",
        "Abstreiter et al. 2021, 2105.14257",
        noise="ve",
        twin="dsm",
    ),
    "vdrl": Method(
        "recipes.vdrl",
        "Gaussian code of x for a score model, with a penalty on its rate",
        "Abstreiter et al. 2021, 2105.14257",
        noise="ve",
        has_bound=True,
        twin="dsm",
    ),
    "tdrl": Method(
        "recipes.tdrl",
        "deterministic code of x and t: one for each noise level",
        "Abstreiter et al. 2021; Mittal et al. 2022, 2210.13774",
        noise="ve",
        twin="dsm",
    ),
    "tvdrl": Method(
        "recipes.tvdrl",
        "Gaussian code of x and t",
        "Abstreiter et al. 2021; Mittal et al. 2022, 2210.13774",
        noise="ve",
        twin="dsm",
    ),
    "vdm": Method(
        "recipes.vdm",
        "variational diffusion: learned noise, the bound itself as loss",
        "Kingma et al. 2021, 2107.00630",
        noise="learned",
        has_code=False,
        has_bound=True,
    ),
    "vae-vdm": Method(
        "recipes.vae_vdm",
        "VAE whose decoder is a conditional variational diffusion model",
        "Kingma et al. 2021; Abstreiter et al. 2021",
        noise="learned",
        has_bound=True,
        twin="vdm",
    ),
    "adversarial": Method(
        "recipes.adversarial",
        "denoising score matching with a critic on the denoised x",
        "Jolicoeur-Martineau et al. 2021, 2009.05475",
        noise="ve",
        has_code=False,
        has_bound=True,
    ),
    "adversarial-drl": Method(
        "recipes.adversarial_drl",
        "drl with a critic on the denoised x",
        "Abstreiter et al. 2021; Jolicoeur-Martineau et al. 2021",
        noise="ve",
        twin="adversarial",
    ),
    "diffae": Method(
        "recipes.diffae",
        "deterministic code for a diffusion decoder, and a latent diffusion prior",
        "Preechakul et al. 2022, 2111.15640",
        noise="vp",
        twin="ddpm",
    ),
    "infodiffusion": Method(
        "recipes.infodiffusion",
        "Gaussian code for a diffusion decoder, matched to N(0, I) by MMD",
        "Wang et al. 2023, 2306.08757",
        noise="vp",
        has_bound=True,
        twin="ddpm",
    ),
    "pdae": Method(
        "recipes.pdae",
        "code that corrects the posterior mean of a diffusion decoder without a code",
        "Zhang et al. 2022, 2212.12990",
        noise="vp",
        twin="ddpm",
    ),
    "soda": Method(
        "recipes.soda",
        "code of one view of x for a decoder that denoises another",
        "Hudson et al. 2023, 2311.17901",
        noise="cosine",
    ),
    "soda-simclr": Method(
        "recipes.soda_simclr",
        "soda, and SimCLR's loss between the codes of two views",
        "Hudson et al. 2023, 2311.17901; Chen et al. 2020, 2002.05709",
        noise="cosine",
    ),
    "ae": Method("baselines.ae", "autoencoder with the same encoder, no diffusion", "Hinton and Salakhutdinov 2006"),
    "dae": Method("baselines.dae", "denoising autoencoder with the same encoder, no diffusion", "Vincent et al. 2008"),
    "mae": Method(
        "baselines.mae", "masked autoencoder: predicts the hidden patches of x", "He et al. 2022, 2111.06377"
    ),
    "vae": Method(
        "baselines.vae",
        "variational autoencoder with the same encoder, no diffusion",
        "Kingma and Welling 2014, 1312.6114",
        has_bound=True,
    ),
    "beta-vae": Method(
        "baselines.beta_vae",
        "vae whose rate has weight 4",
        "Higgins et al. 2017",
        has_bound=True,
    ),
    "simclr": Method(
        "baselines.simclr",
        "contrastive loss on two views within the batch, no decoder",
        "Chen et al. 2020, 2002.05709",
        decodes=False,
    ),
    "vicreg": Method(
        "baselines.vicreg",
        "two views alike, features of unit variance and decorrelated, no decoder",
        "Bardes et al. 2022, 2105.04906",
        decodes=False,
    ),
    "byol": Method(
        "baselines.byol",
        "the code of one view predicts a slow copy's code of the other, no decoder",
        "Grill et al. 2020, 2006.07733",
        decodes=False,
    ),
    "classifier": Method(
        "baselines.classifier",
        "the same encoder trained on the labels: an upper reference",
        "Bridle 1990",
        decodes=False,
    ),
    "random-encoder": Method(
        "baselines.random_encoder",
        "the same encoder, not trained: a lower reference",
        "Saxe et al. 2011",
        decodes=False,
    ),
}


def method(name: str) -> Method:
    """The method of that name: of diffrep, registered in this process, or offered by an installed package.

    UserError with the nearest name where there is none. Only the method of an installed package is imported.
    """
    if name in METHODS:
        return METHODS[name]
    if (registered := foreign.lookup(name)) is not None:
        return registered if isinstance(registered, Method) else of_recipe(registered)
    if ":" in name:
        raise UserError(
            f"the method {name} is not here: install the package {name.split(':')[0].split('.')[0]!r}, which must offer"
            f" it as an entry point of {foreign.GROUP!r}, or hand it over, diffrep.load(run, method=function)."
        )
    raise unknown("method", name, METHODS, f"`diffrep methods` lists all {len(METHODS)}.")


def of_recipe(recipe: Recipe) -> Method:
    """A method from a function: its summary is the first line of the docstring."""
    return Method(recipe, (recipe.__doc__ or "a method of one's own").strip().splitlines()[0], "")


def name_of(chosen: str | Method | Recipe) -> str:
    """The name of a method in settings; for a function, or a `Method` with one, package:function.

    A function is registered in this process from now on.
    """
    if isinstance(chosen, str):
        return chosen
    recipe = chosen.recipe if isinstance(chosen, Method) else chosen
    if isinstance(recipe, str):
        return next(name for name, own in METHODS.items() if own == chosen)
    return foreign.hand_over(recipe, chosen)


def build(settings: Settings, facts: Facts, warn: bool = True) -> Model:
    """The model that the settings describe, for data with these facts; its initial weights depend on the seed.

    warn: a UserWarning names the settings that have no effect. UserError: an unknown method, settings that do not make
    a model.
    """
    import torch

    from diffrep.methods.parts import Parts
    from diffrep.methods.unused_settings import recorded, unread

    recipe, read = method(settings.method), set[str]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            model = recipe.build(Parts(recorded(settings, read) if warn else settings, facts))
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"these settings do not make a model: {error}") from error
    if facts.covariates and (model.diffusion is None or not model.diffusion.denoiser.covariates):
        raise UserError(f"{settings.method} has no decoder that takes data.covariate: leave it out, or train vae-vdm.")
    idle = unread(settings, read, BUILDING) if warn else []
    if idle:
        warnings.warn(f"{settings.method} has no use for {', '.join(idle)} here: it changes nothing.", stacklevel=2)
    return model
