"""Parts from settings: the networks, noise, codes and weights that recipes choose from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from torch import Tensor, nn

from diffrep.codes.autoregressive import Autoregressive
from diffrep.codes.flow import Flow
from diffrep.codes.posteriors import Categorical, Deterministic, FixedRate, Gaussian, Posterior
from diffrep.codes.priors import Afterwards, Categories, FittedNormal, Joint, Mixture, Prior, StandardNormal, Whitened
from diffrep.config import Settings
from diffrep.data.places import GROUPS
from diffrep.data.views import Hide, View, chain, crop, drop, erase, flip, hidden, jitter, noisy
from diffrep.denoising import noise as noises
from diffrep.denoising import parameterisations
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import (
    Density,
    Levels,
    balanced,
    band,
    coarse,
    fine,
    high_noise,
    likelihood,
    low_noise,
    share,
    uniform,
)
from diffrep.denoising.observation import Observation
from diffrep.denoising.start import GaussianStart, StandardStart, Start
from diffrep.errors import UserError, unknown
from diffrep.models.latent_diffusion import LatentDiffusion
from diffrep.models.loss_weights import Annealed, Constant, Cyclic, Fading, FreeBits, Lag, TargetRate, WarmUp, Weight
from diffrep.nets.decoders import Decoder, Generator, MLPDecoder, MLPGenerator, UNet
from diffrep.nets.encoders import ConvEncoder, Critic, Encoder, MLPEncoder, ViT, WideResNet
from diffrep.nets.gap import Filled
from diffrep.shapes import Shape

HELD = 12.0  # nats: the rate that methods with a Gaussian code hold where no price is given


@dataclass(frozen=True)
class Facts:
    """What a model must know of its data: the shape of an example, its grey levels (None: continuous), their counts by
    channel and by places that are alike (`data.places`), and how many classes its labels name."""

    shape: Shape
    bins: int | None
    histogram: Tensor | None = None
    places: tuple[Tensor, Tensor] | None = None
    classes: int = 0


@dataclass(frozen=True)
class Parts:
    """The parts that recipes choose from, made from settings and from what the data is."""

    settings: Settings
    facts: Facts

    def denoiser(self, noise: str, code: bool = False) -> Denoiser:
        """`noise`: the process that the method's paper uses, taken where the settings leave it open."""
        observed = code and self.settings.decoder.observe_code is not False
        parameterisation = self.parameterisation(observed)
        observation = self.observation(parameterisation) if observed else None
        return Denoiser(self._decoder(parameterisation, code), self.noise(noise), parameterisation, observation)

    def observation(self, parameterisation: parameterisations.Parameterisation) -> Observation | None:
        """The code as one more observation of x, drawn by a generator of half the decoder's width."""
        settings = self.settings
        if parameterisation.fuses:
            width, until = max(4, settings.decoder.width // 2), settings.decoder.code_until
            return Observation(self.facts.shape, settings.code.dim, width, until)
        if settings.decoder.observe_code:
            raise UserError(
                f"predicts={settings.predicts} has no mean of x that a code could move, got decoder.observe_code=true;"
                " leave one of them out"
            )
        return None

    def filled(self, noise: str) -> Denoiser:
        """A decoder without a code, and a second one that adds what the code knows more."""
        parameterisation = self.parameterisation()
        plain, gap = (self._decoder(parameterisation, code) for code in (False, True))
        return Denoiser(Filled(plain, gap), self.noise(noise), parameterisation)

    def _decoder(self, parameterisation: parameterisations.Parameterisation, code: bool) -> Decoder:
        decoder, shape = self.settings.decoder, self.facts.shape
        code_dim = self.settings.code.dim if code else 0
        extra = parameterisation.channels * shape[0]
        if _choose(decoder.kind, "mlp" if len(shape) == 1 else "unet") == "mlp":
            return MLPDecoder(
                shape,
                width=8 * decoder.width,
                blocks=decoder.blocks + 1,
                code_dim=code_dim,
                fourier=decoder.fourier,
                dropout=decoder.dropout,
                extra_channels=extra,
                code_until=decoder.code_until if code else None,
                condition_width=decoder.condition_width,
            )
        return UNet(
            shape,
            width=decoder.width,
            multipliers=decoder.multipliers,
            blocks=decoder.blocks,
            code_dim=code_dim,
            fourier=decoder.fourier,
            attention=tuple(level for level, attends in enumerate(decoder.attention) if attends),
            draw_code=decoder.draw_code and code,
            dropout=decoder.dropout,
            extra_channels=extra,
            code_until=decoder.code_until if code else None,
            condition_width=decoder.condition_width,
        )

    def start(self, code: bool = False) -> Start:
        """p(x_1 | z), from which the chain starts."""
        if self.settings.decoder.start == "normal":
            return StandardStart()
        width = max(4, self.settings.decoder.width // 2)
        return GaussianStart(self.facts.shape, self.settings.code.dim if code else 0, width)

    def noise(self, own: str) -> noises.Noise:
        s = self.settings.noise
        gamma_0 = self.gamma_0() if s.gamma_0 is None else s.gamma_0
        make: dict[str, Callable[[], noises.Noise]] = {
            "ve": lambda: noises.VE(s.sigma_min, s.sigma_max),
            "vp": lambda: noises.VP(s.beta_min, s.beta_max),
            "subvp": lambda: noises.SubVP(s.beta_min, s.beta_max),
            "cosine": lambda: noises.Cosine(-15.0, -gamma_0),
            "linear": lambda: noises.LinearGamma(gamma_0, s.gamma_1),
            "learned-ends": lambda: noises.LinearGamma(gamma_0, s.gamma_1, learned=True),
            "learned": lambda: noises.LearnedGamma(gamma_0, s.gamma_1),
        }
        return make[_choose(s.kind, own)]()

    def gamma_0(self) -> float:
        """sigma_0 a sixth of a grey level, which for 256 levels is VDM's -13.3; -13.3 for continuous data too."""
        return -13.3 if self.facts.bins is None else 2 * math.log(2 / self.facts.bins / 6)

    def parameterisation(self, observed: bool = False) -> parameterisations.Parameterisation:
        """observed: a code is heard as one more observation of x."""
        shape, bins = self.facts.shape, self.facts.bins
        name = _choose(self.settings.predicts, "edm" if bins is None else "marginal")
        if name == "marginal":
            if bins is None:
                raise UserError("predicts=marginal needs grey levels and this data is continuous; use predicts=edm")
            if self.settings.decoder.by_place:
                return parameterisations.MarginalByPlace(shape, bins, shape[0] * GROUPS, self.facts.places)
            return parameterisations.Marginal(shape[0], bins, self.facts.histogram)
        sd = 1.0 if len(self.facts.shape) == 1 else 0.5  # tables are standardised
        make: dict[str, Callable[[], parameterisations.Parameterisation]] = {
            "eps": parameterisations.Eps,
            "x": parameterisations.X,
            "v": parameterisations.V,
            "score": parameterisations.Score,
            "edm": lambda: parameterisations.EDM(sd, shown=observed),
        }
        return make[name]()

    def encoder(self, time: bool = False) -> Encoder:
        e, shape = self.settings.encoder, self.facts.shape
        kind = _choose(e.kind, "mlp" if len(shape) == 1 else "conv")
        depth = {} if e.depth is None else {"depth": e.depth}
        make: dict[str, Callable[[], Encoder]] = {
            "conv": lambda: ConvEncoder(shape, width=e.width, time=time, dropout=e.dropout),
            "wideresnet": lambda: WideResNet(shape, **depth, widen=e.widen, time=time, dropout=e.dropout),
            "vit": lambda: ViT(shape, patch=e.patch, width=4 * e.width, **depth, time=time, dropout=e.dropout),
            "mlp": lambda: MLPEncoder(shape, width=8 * e.width, **depth, time=time, dropout=e.dropout),
        }
        return make[kind]()

    def random(self, time: bool = False) -> Posterior:
        """q(z | x): Gaussian, or the categorical variables that the settings ask for."""
        code, encoder = self.settings.code, self.encoder(time)
        if code.kind == "categorical":
            return Categorical(encoder, code.dim, code.classes, time)
        if code.kind == "fixed-rate":
            return FixedRate(encoder, code.dim, HELD if code.rate is None else code.rate, time)
        return Gaussian(encoder, code.dim, time)

    def gaussian(self) -> Posterior:
        return Gaussian(self.encoder(), self.settings.code.dim)

    def deterministic(self, time: bool = False) -> Posterior:
        if self.settings.code.kind != "auto":
            raise UserError(
                f"{self.settings.method} has a deterministic code, got code.kind={self.settings.code.kind}; leave it"
                " out, or train vdrl, vae-vdm or vae"
            )
        return Deterministic(self.encoder(time), self.settings.code.dim, time)

    def prior(self, own: str = "normal") -> Prior:
        """p(z) of a random code, trained by the rate where it has parameters; `own`: if settings leave it open."""
        code, kind = self.settings.code, self.settings.prior.kind
        if code.kind == "categorical":
            if kind not in ("auto", "autoregressive"):
                raise UserError(
                    f"a categorical code has a prior of its own, got prior.kind={kind}; leave it out, or use"
                    " autoregressive"
                )
            of_variables: Callable[[int, int], Prior] = Categories if kind == "auto" else Autoregressive
            return of_variables(code.dim // code.classes, code.classes)
        chosen = _choose(kind, own)
        if chosen == "afterwards":
            return Afterwards(code.dim, self.settings.prior.components)
        return StandardNormal(code.dim) if chosen == "normal" else Joint(self._density(chosen))

    def prior_after(self, own: str = "normal") -> Prior:
        """p(z) of a deterministic code, fitted after training; `own`: that of the paper, if settings leave it open."""
        dim, kind = self.settings.code.dim, _choose(self.settings.prior.kind, own)
        if kind == "normal":
            return FittedNormal(dim)
        return Whitened(dim, self._density(kind)).requires_grad_(False)

    def _density(self, kind: str) -> Prior:
        dim = self.settings.code.dim
        if kind == "autoregressive":
            raise UserError("prior.kind=autoregressive is for code.kind=categorical; use mixture, flow or diffusion")
        if kind == "afterwards":
            raise UserError(
                "prior.kind=afterwards is for a random code: that of a deterministic one is always fitted after"
                " training; use normal, mixture, flow or diffusion"
            )
        make: dict[str, Callable[[], Prior]] = {
            "mixture": lambda: Mixture(dim, self.settings.prior.components),
            "flow": lambda: Flow(dim),
            "diffusion": lambda: LatentDiffusion(dim),
        }
        return make[kind]()

    def generator(self) -> nn.Module:
        shape, dim, width = self.facts.shape, self.settings.code.dim, self.settings.decoder.width
        return MLPGenerator(shape, dim, width=8 * width) if len(shape) == 1 else Generator(shape, dim, width=width)

    def head(self, inputs: int | None = None, outputs: int = 64) -> nn.Module:
        """What a loss between views sees of a code (of `inputs` numbers): a perceptron, thrown away after training."""
        inputs = self.settings.code.dim if inputs is None else inputs
        return nn.Sequential(nn.Linear(inputs, 2 * outputs), nn.SiLU(), nn.Linear(2 * outputs, outputs))

    def view(self) -> View:
        v = self.settings.views
        if len(self.facts.shape) < 3:
            return chain(drop(v.drop), noisy(v.noise))
        mirrored = (flip,) if v.flip else ()
        return chain(crop(v.crop), *mirrored, jitter(v.jitter), erase(v.erase), noisy(v.noise))

    def hide(self) -> Hide:
        """Patches of about a quarter of the shortest axis; the numbers of a vector one by one."""
        spatial = self.facts.shape[1:]
        return partial(hidden, share=self.settings.views.mask, side=max(1, min(spatial) // 4) if spatial else 1)

    def critic(self) -> nn.Module:
        return Critic(self.facts.shape, width=self.settings.decoder.width)

    def levels(self, own: Density, name: str | None = None) -> Levels:
        """The level of detail that the settings name, or `name`; the method's own where they leave it open."""
        name, anneal = name or self.settings.detail, self.settings.anneal
        dims = math.prod(self.facts.shape)
        looks = own if name == "auto" else _detail(name, dims)
        if anneal.detail is not None:
            return Levels(Fading(_detail(anneal.detail, dims), looks, anneal.steps))
        return Levels(looks) if name == "auto" else Levels(looks, draws=looks)

    def gate(self, looks: Density, own: str = "decoder") -> Density | None:
        """The share of the decoder's loss, of measure `looks`, that teaches the code; None: all of it.

        own: the level of detail that teaches it where the settings leave it open."""
        name = _choose(self.settings.code.detail, own)
        return None if name == "decoder" else share(_detail(name, math.prod(self.facts.shape)), looks)

    def decoder_weight(self) -> Weight | None:
        """A factor on the decoder's loss that goes to one, where the settings ask for it."""
        anneal = self.settings.anneal
        return None if anneal.factor == 1 else Annealed(anneal.factor, anneal.steps)

    def rate_weight(self, rate: float | None = None, beta: float = 1.0) -> Weight:
        """How the rate is priced: as the settings say, else a target rate in nats, else at the method's own beta."""
        code = self.settings.code
        free = code.beta is None and not (code.warmup or code.cycle or code.free_bits)
        target = rate if code.rate is None and free else code.rate
        if code.kind == "fixed-rate":
            return Constant(1.0)
        if target is not None:
            return TargetRate(self._reachable(target))
        beta = beta if code.beta is None else code.beta
        if code.warmup:
            return WarmUp(beta, code.warmup)
        if code.cycle:
            return Cyclic(beta, code.cycle)
        return FreeBits(code.free_bits, beta) if code.free_bits else Constant(beta)

    def lag(self, weight: Weight) -> Lag | None:
        """Extra steps of the encoder, where the settings ask for them; `weight`: the rate's."""
        code = self.settings.code
        if not code.extra_steps:
            return None
        if not code.extra_until and weight.target is None:
            raise UserError(
                f"code.extra_steps={code.extra_steps} needs a target rate to lag behind and the rate is priced without"
                " one; set code.rate, or say for how many steps with code.extra_until"
            )
        return Lag(code.extra_steps, code.extra_until, None if weight.target is None else cast(TargetRate, weight))

    def _reachable(self, nats: float) -> float:
        """A target rate that the code can hold; the method's own gives way to a code that holds less."""
        code = self.settings.code
        if code.kind != "categorical":
            return nats
        most = code.dim // code.classes * math.log(code.classes)
        if code.rate is not None and code.rate >= most:
            raise UserError(
                f"a categorical code of {code.dim // code.classes} variables of {code.classes} classes holds less than"
                f" {most:.1f} nats, got code.rate={code.rate}; lower it, or raise code.dim or code.classes"
            )
        return min(nats, 0.8 * most) if code.rate is None else nats


DETAILS: dict[str, Callable[[int], Density]] = {  # of the count of numbers in an example
    "coarse": coarse,
    "balanced": balanced,
    "fine": fine,
    "uniform": lambda dims: uniform,
    "likelihood": lambda dims: likelihood,
    "high-noise": lambda dims: high_noise,
    "low-noise": lambda dims: low_noise,
}


def _detail(name: str, dims: int) -> Density:
    """The density of that name, or of a band:low:high in log-SNR."""
    if name.startswith("band:"):
        try:
            low, high = (float(number) for number in name.split(":")[1:])
            return band(low, high)
        except ValueError as error:
            raise UserError(f"expected a band as band:low:high with low < high in log-SNR, got {name!r}") from error
    if name not in DETAILS:
        raise unknown("level of detail", name, [*DETAILS, "band:low:high"])
    return DETAILS[name](dims)


def _choose(setting: str, own: str) -> str:
    return own if setting == "auto" else setting
