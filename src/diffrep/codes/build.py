"""Codes and their priors from their sections of the settings; `kinds.py` names the priors that are learned."""

from __future__ import annotations

from collections.abc import Callable

from diffrep.codes.autoregressive import Autoregressive
from diffrep.codes.posteriors import Categorical, FixedRate, Gaussian, Posterior
from diffrep.codes.priors import Afterwards, Categories, FittedNormal, Joint, Prior, StandardNormal, Whitened
from diffrep.config import CodeSettings, PriorSettings, chosen
from diffrep.errors import UserError
from diffrep.nets.encoders import Encoder

Densities = Callable[[str, int], Prior]  # a word of `kinds.PRIORS`, the dimension of a code -> a prior to be learned


def random(settings: CodeSettings, dim: int, encoder: Encoder, rate: float, time: bool = False) -> Posterior:
    """q(z | x) of a random code: Gaussian, or as the settings ask. rate: nats of a fixed rate, where the settings have
    none."""
    if settings.kind == "categorical":
        return Categorical(encoder, dim, settings.classes, time)
    if settings.kind == "fixed-rate":
        return FixedRate(encoder, dim, rate if settings.rate is None else settings.rate, time)
    return Gaussian(encoder, dim, time)


def prior(settings: PriorSettings, code: CodeSettings, dim: int, own: str, density: Densities) -> Prior:
    """p(z) of a random code, trained with it through the rate. own: the method's prior, used for "auto"."""
    kind = settings.kind
    if code.kind == "categorical":
        if kind not in ("auto", "autoregressive"):
            raise UserError(
                f"a categorical code has a prior of its own, got prior.kind={kind}; leave it out, or use autoregressive"
            )
        of_variables: Callable[[int, int], Prior] = Categories if kind == "auto" else Autoregressive
        return of_variables(dim // code.classes, code.classes)
    name = chosen(kind, own)
    if name == "afterwards":
        return Afterwards(dim, settings.components)
    return StandardNormal(dim) if name == "normal" else Joint(_learned(name, dim, density))


def prior_after(settings: PriorSettings, dim: int, own: str, density: Densities) -> Prior:
    """p(z) of a deterministic code, fitted after training. own: the prior of the paper, used for "auto"."""
    name = chosen(settings.kind, own)
    if name == "normal":
        return FittedNormal(dim)
    return Whitened(dim, _learned(name, dim, density)).requires_grad_(False)


def _learned(name: str, dim: int, density: Densities) -> Prior:
    if name == "autoregressive":
        raise UserError("prior.kind=autoregressive is for code.kind=categorical; use mixture, flow or diffusion")
    if name == "afterwards":
        raise UserError(
            "prior.kind=afterwards is for a random code: that of a deterministic one is always fitted after training;"
            " use normal, mixture, flow or diffusion"
        )
    return density(name, dim)
