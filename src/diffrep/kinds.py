"""Words of the settings that stand for a class, and where below diffrep the class stands; read without torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any

from pydantic import AfterValidator, BaseModel

ENCODERS = {
    "conv": "nets.encoders.ConvEncoder",
    "wideresnet": "nets.encoders.WideResNet",
    "vit": "nets.encoders.ViT",
    "mlp": "nets.encoders.MLPEncoder",
}
PRIORS = {  # densities that are learned, of a code of so many numbers
    "mixture": "codes.priors.Mixture",
    "flow": "codes.flow.Flow",
    "diffusion": "models.latent_diffusion.LatentDiffusion",
}


def one_of(*words: str) -> AfterValidator:
    """Checks a setting that is one of these words."""

    def check(word: str) -> str:
        if word not in words:
            raise ValueError(f"expected {', '.join(map(repr, words[:-1]))} or {words[-1]!r}, got {word!r}.")
        return word

    return AfterValidator(check)


def made(place: str, section: BaseModel, *arguments: object, **named: object) -> Any:
    """The class at `place`, imported now, called with these arguments and with the settings that it has arguments for.

    A setting is handed on under its own name, and left out where it is none: then the class has its own default.
    """
    module, _, name = place.rpartition(".")
    kind: Callable[..., Any] = getattr(import_module(f"diffrep.{module}"), name)
    shared = [name for name in signature(kind).parameters if name in type(section).model_fields and name not in named]
    asked = {name: value for name in shared if (value := getattr(section, name)) is not None}
    return kind(*arguments, **asked, **named)
