"""Codes and their priors from their sections of the settings: a new prior is a row here and a word in config.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from diffrep.codes.autoregressive import Autoregressive
from diffrep.codes.flow import Flow
from diffrep.codes.posteriors import Categorical, FixedRate, Gaussian, Posterior
from diffrep.codes.priors import Afterwards, Categories, FittedNormal, Joint, Mixture, Prior, StandardNormal, Whitened
from diffrep.config import CodeSettings, PriorSettings, chosen
from diffrep.errors import UserError
from diffrep.nets.encoders import Encoder

Densities = Mapping[str, Callable[[int], Prior]]  # name -> the dimension of a code -> a prior that has to be learned


def random(settings: CodeSettings, encoder: Encoder, rate: float, time: bool = False) -> Posterior:
    """q(z | x) of a random code: Gaussian, or as the settings ask. rate: nats of a fixed rate that they leave open."""
    if settings.kind == "categorical":
        return Categorical(encoder, settings.dim, settings.classes, time)
    if settings.kind == "fixed-rate":
        return FixedRate(encoder, settings.dim, rate if settings.rate is None else settings.rate, time)
    return Gaussian(encoder, settings.dim, time)


def prior(settings: PriorSettings, code: CodeSettings, own: str, more: Densities) -> Prior:
    """p(z) of a random code, trained with it by the rate. own: where the settings leave it open.

    more: densities of other folders.
    """
    kind = settings.kind
    if code.kind == "categorical":
        if kind not in ("auto", "autoregressive"):
            raise UserError(
                f"a categorical code has a prior of its own, got prior.kind={kind}; leave it out, or use autoregressive"
            )
        of_variables: Callable[[int, int], Prior] = Categories if kind == "auto" else Autoregressive
        return of_variables(code.dim // code.classes, code.classes)
    name = chosen(kind, own)
    if name == "afterwards":
        return Afterwards(code.dim, settings.components)
    return StandardNormal(code.dim) if name == "normal" else Joint(_density(settings, name, code.dim, more))


def prior_after(settings: PriorSettings, dim: int, own: str, more: Densities) -> Prior:
    """p(z) of a deterministic code, fitted after training. own: that of the paper, where the settings leave it open."""
    name = chosen(settings.kind, own)
    if name == "normal":
        return FittedNormal(dim)
    return Whitened(dim, _density(settings, name, dim, more)).requires_grad_(False)


def _density(settings: PriorSettings, name: str, dim: int, more: Densities) -> Prior:
    if name == "autoregressive":
        raise UserError("prior.kind=autoregressive is for code.kind=categorical; use mixture, flow or diffusion")
    if name == "afterwards":
        raise UserError(
            "prior.kind=afterwards is for a random code: that of a deterministic one is always fitted after training;"
            " use normal, mixture, flow or diffusion"
        )
    own: Densities = {"mixture": lambda dim: Mixture(dim, settings.components), "flow": Flow}
    return {**own, **more}[name](dim)
