"""Settings -> objects: each method as a composition of parts, and the one table of their names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffrep import noise as noises
from diffrep import parameterisations, terms
from diffrep.baselines import Autoencoder
from diffrep.codes import Deterministic, Gaussian, Posterior
from diffrep.config import Settings
from diffrep.control import Constant, FreeBits, TargetRate, WarmUp, Weight
from diffrep.denoiser import Denoiser
from diffrep.errors import UserError, unknown
from diffrep.levels import Density, Levels, band, high_noise, likelihood, low_noise, uniform
from diffrep.model import DiffusionModel, Model, Noised, Term
from diffrep.nets.decoders import Generator, MLPDecoder, MLPGenerator, UNet
from diffrep.nets.encoders import ConvEncoder, Critic, MLPEncoder, ViT, WideResNet
from diffrep.priors import FittedNormal, StandardNormal
from diffrep.shapes import PerExample, Shape


@dataclass(frozen=True)
class Facts:
    """What a model must know of its data: the shape of one example, its grey levels (None: continuous), their counts."""

    shape: Shape
    bins: int | None
    histogram: Tensor | None = None


def denoise(step: Noised) -> PerExample:
    return terms.denoising(step.eps, step.prediction, step.weight)


def prior(step: Noised) -> PerExample:
    return step.model.noise.prior_loss(step.x)


def rate(step: Noised) -> PerExample:
    return step.model.prior.rate(step.code, step.z)


def l1(step: Noised) -> PerExample:
    return terms.l1(step.code)


def slice_score(step: Noised) -> PerExample:
    """Sliced score matching at noise level t, in units of the noise: sigma^2 (v' grad s v + 1/2 |s|^2)."""
    v = step.draws.normal(*step.x.shape)
    nats = terms.sliced_score(lambda x_t: step.model.denoiser(x_t, step.t, step.z).score, step.x_t, v)
    return step.weight * step.prediction.sigma**2 * nats


def fool(step: Noised) -> PerExample:
    return terms.fool(step.model.critic(step.prediction.x))


def reconstruct(step: Noised) -> PerExample:
    x, zero = step.x, torch.zeros_like(step.t)
    alpha, sigma = step.model.noise.scales(zero)
    x_0 = step.model.noise.add(x, step.draws.normal(*x.shape), zero)
    if step.model.bins is None:
        return terms.density(x, x_0, alpha, sigma)
    return terms.reconstruction(x, x_0, alpha, sigma, step.model.bins)


def in_steps(steps: int) -> Term:
    """The diffusion loss of a chain of finite length, for times on its grid."""

    def term(step: Noised) -> PerExample:
        gamma_s = -step.model.noise.log_snr(step.t - 1 / steps)
        return terms.diffusion_in_steps(step.eps, step.prediction, -step.log_snr, gamma_s, steps)

    return term


@dataclass(frozen=True)
class Parts:
    """The parts that recipes choose from, made from settings and from what the data is."""

    settings: Settings
    facts: Facts

    def denoiser(self, noise: str, code: bool = False) -> Denoiser:
        """`noise`: the process that the method's paper uses, taken where the settings leave it open."""
        process, parameterisation = self.noise(noise), self.parameterisation()
        decoder, shape = self.settings.decoder, self.facts.shape
        code_dim = self.settings.code.dim if code else 0
        extra = parameterisation.channels * shape[0]
        network: nn.Module
        if _choose(decoder.kind, "mlp" if len(shape) == 1 else "unet") == "mlp":
            network = MLPDecoder(
                shape,
                width=8 * decoder.width,
                blocks=decoder.blocks + 1,
                code_dim=code_dim,
                fourier=decoder.fourier,
                dropout=decoder.dropout,
                extra_channels=extra,
            )
        else:
            network = UNet(
                shape,
                width=decoder.width,
                multipliers=decoder.multipliers,
                blocks=decoder.blocks,
                code_dim=code_dim,
                fourier=decoder.fourier,
                attention=tuple(level for level, attends in enumerate(decoder.attention) if attends),
                bottleneck_code=decoder.bottleneck_code and code,
                dropout=decoder.dropout,
                extra_channels=extra,
            )
        return Denoiser(network, process, parameterisation)

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

    def parameterisation(self) -> parameterisations.Parameterisation:
        channels, bins = self.facts.shape[0], self.facts.bins
        name = _choose(self.settings.predicts, "edm" if bins is None else "marginal")
        if name == "marginal":
            if bins is None:
                raise UserError("predicts=marginal needs grey levels and this data is continuous; use predicts=edm")
            return parameterisations.Marginal(channels, bins, self.facts.histogram)
        sd = 1.0 if len(self.facts.shape) == 1 else 0.5  # tables are standardised
        make: dict[str, Callable[[], parameterisations.Parameterisation]] = {
            "eps": parameterisations.Eps,
            "x": parameterisations.X,
            "v": parameterisations.V,
            "score": parameterisations.Score,
            "edm": lambda: parameterisations.EDM(sd),
        }
        return make[name]()

    def encoder(self, time: bool = False) -> nn.Module:
        e, shape = self.settings.encoder, self.facts.shape
        kind = _choose(e.kind, "mlp" if len(shape) == 1 else "conv")
        make: dict[str, Callable[[], nn.Module]] = {
            "conv": lambda: ConvEncoder(shape, width=e.width, time=time),
            "wideresnet": lambda: WideResNet(shape, depth=e.depth, widen=e.widen, time=time),
            "vit": lambda: ViT(shape, patch=e.patch, width=4 * e.width, depth=e.depth, time=time),
            "mlp": lambda: MLPEncoder(shape, width=8 * e.width, depth=e.depth, time=time),
        }
        return make[kind]()

    def gaussian(self, time: bool = False) -> Posterior:
        return Gaussian(self.encoder(time), self.settings.code.dim, time)

    def deterministic(self, time: bool = False) -> Posterior:
        return Deterministic(self.encoder(time), self.settings.code.dim, time)

    def generator(self) -> nn.Module:
        shape, dim, width = self.facts.shape, self.settings.code.dim, self.settings.decoder.width
        return MLPGenerator(shape, dim, width=8 * width) if len(shape) == 1 else Generator(shape, dim, width=width)

    def critic(self) -> nn.Module:
        return Critic(self.facts.shape, width=self.settings.decoder.width)

    def levels(self, own: Density) -> Levels:
        """The level of detail that the settings name; the method's own where they leave it open."""
        name = self.settings.detail
        if name == "auto":
            return Levels(own)
        if name.startswith("band:"):
            try:
                low, high = (float(number) for number in name.split(":")[1:])
                density = band(low, high)
            except ValueError as error:
                raise UserError(f"expected detail=band:low:high with low < high in log-SNR, got {name!r}") from error
            return Levels(density, draws=density)
        if name not in DETAILS:
            raise unknown("level of detail", name, [*DETAILS, "band:low:high"])
        return Levels(DETAILS[name], draws=DETAILS[name])

    def rate_weight(self, rate: float | None = None) -> Weight:
        """How the rate is priced: the settings' beta (with warm-up or free bits), else a target rate in nats."""
        code = self.settings.code
        if code.rate is not None and code.beta is not None:
            raise UserError("code.rate and code.beta both set the price of the rate; give one of them")
        target = code.rate if code.rate is not None else rate
        if code.beta is None and target is not None:
            return TargetRate(target)
        beta = 1.0 if code.beta is None else code.beta
        if code.warmup:
            return WarmUp(beta, code.warmup)
        return FreeBits(code.free_bits, beta) if code.free_bits else Constant(beta)


DETAILS: dict[str, Density] = {
    "uniform": uniform,
    "likelihood": likelihood,
    "high-noise": high_noise,
    "low-noise": low_noise,
}
HELD = 12.0  # nats: the rate that methods with a Gaussian code hold where no price is given


def _choose(setting: str, own: str) -> str:
    return own if setting == "auto" else setting


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
        {"denoising": denoise} | ({"l1": l1} if code.l1 else {}),
        parts.levels(uniform),
        posterior=parts.deterministic(time),
        prior=None if time else FittedNormal(code.dim),
        weights={"l1": Constant(code.l1)} if code.l1 else {},
        drop=code.drop,
    )


def tdrl(parts: Parts) -> Model:
    return drl(parts, time=True)


def vdrl(parts: Parts, time: bool = False) -> Model:
    return _diffusion(
        parts,
        parts.denoiser("ve", code=True),
        {"denoising": denoise, "rate": rate},
        parts.levels(uniform),
        posterior=parts.gaussian(time),
        prior=StandardNormal(parts.settings.code.dim),
        weights={"rate": parts.rate_weight(HELD)},
        drop=parts.settings.code.drop,
    )


def tvdrl(parts: Parts) -> Model:
    return vdrl(parts, time=True)


def vdm(parts: Parts) -> Model:
    denoiser = parts.denoiser("learned")
    return _diffusion(parts, denoiser, _bound_terms(denoiser), parts.levels(likelihood))


def vae_vdm(parts: Parts) -> Model:
    denoiser = parts.denoiser("learned", code=True)
    return _diffusion(
        parts,
        denoiser,
        _bound_terms(denoiser) | {"rate": rate},
        parts.levels(likelihood),
        posterior=parts.gaussian(),
        prior=StandardNormal(parts.settings.code.dim),
        weights={"rate": parts.rate_weight(HELD)},
        drop=parts.settings.code.drop,
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
        prior=FittedNormal(parts.settings.code.dim),
        drop=parts.settings.code.drop,
        critic=parts.critic(),
    )


def ae(parts: Parts) -> Model:
    return _autoencoder(parts, parts.deterministic(), FittedNormal(parts.settings.code.dim))


def dae(parts: Parts) -> Model:
    return _autoencoder(parts, parts.deterministic(), FittedNormal(parts.settings.code.dim), corrupt=0.5)


def vae(parts: Parts) -> Model:
    prior_ = StandardNormal(parts.settings.code.dim)
    return _autoencoder(parts, parts.gaussian(), prior_, weights={"rate": parts.rate_weight()})


def _diffusion(parts: Parts, denoiser: Denoiser, terms_: dict[str, Term], levels: Levels, **rest) -> DiffusionModel:
    return DiffusionModel(parts.facts.shape, parts.facts.bins, denoiser, terms_, levels, **rest)


def _autoencoder(parts: Parts, posterior: Posterior, prior_: nn.Module, **rest) -> Autoencoder:
    return Autoencoder(parts.facts.shape, parts.facts.bins, posterior, parts.generator(), prior_, **rest)


def _bound_terms(denoiser: Denoiser) -> dict[str, Term]:
    """The bound; its ends enter the loss only where they are learned, since otherwise they are constants."""
    ends = denoiser.noise.learns_ends
    return {"diffusion": denoise} | ({"prior": prior, "reconstruction": reconstruct} if ends else {})


@dataclass(frozen=True)
class Method:
    """A recipe, what it does in one line, and where it was published."""

    build: Callable[[Parts], Model]
    summary: str
    paper: str


METHODS: dict[str, Method] = {
    "ddpm": Method(ddpm, "diffusion model, no code: VP noise, plain loss on the noise", "Ho et al. 2020, 2006.11239"),
    "dsm": Method(dsm, "denoising score matching, no code; VE, VP or sub-VP by noise.kind", "Vincent 2011; Song et al. 2021, 2011.13456"),
    "ssm": Method(ssm, "sliced score matching with variance reduction, no code", "Song et al. 2019, 1905.07088"),
    "drl": Method(drl, "deterministic code of x for a score model; detail sets what it holds", "Abstreiter et al. 2021, 2105.14257"),
    "vdrl": Method(vdrl, "Gaussian code of x for a score model, priced by its rate", "Abstreiter et al. 2021, 2105.14257"),
    "tdrl": Method(tdrl, "deterministic code of x and t: one for each noise level", "Abstreiter et al. 2021; Mittal et al. 2022, 2210.13774"),
    "tvdrl": Method(tvdrl, "Gaussian code of x and t", "Abstreiter et al. 2021; Mittal et al. 2022, 2210.13774"),
    "vdm": Method(vdm, "variational diffusion: learned noise, the bound itself as loss", "Kingma et al. 2021, 2107.00630"),
    "vae-vdm": Method(vae_vdm, "VAE whose decoder is a conditional variational diffusion model", "Kingma et al. 2021; Abstreiter et al. 2021"),
    "adversarial": Method(adversarial, "denoising score matching with a critic on the denoised x", "Jolicoeur-Martineau et al. 2021, 2009.05475"),
    "adversarial-drl": Method(adversarial_drl, "drl with a critic on the denoised x", "Abstreiter et al. 2021; Jolicoeur-Martineau et al. 2021"),
    "ae": Method(ae, "autoencoder with the same encoder, no diffusion", "Hinton and Salakhutdinov 2006"),
    "dae": Method(dae, "denoising autoencoder with the same encoder, no diffusion", "Vincent et al. 2008"),
    "vae": Method(vae, "variational autoencoder with the same encoder, no diffusion", "Kingma and Welling 2014, 1312.6114"),
}  # fmt: skip


def method(name: str) -> Method:
    """The method of that name; UserError with the nearest one where there is none."""
    if name not in METHODS:
        raise unknown("method", name, METHODS, f"`diffrep methods` lists all {len(METHODS)}.")
    return METHODS[name]


def build(settings: Settings, facts: Facts) -> Model:
    """The model that the settings describe, for such data; its weights are drawn from the settings' seed."""
    recipe = method(settings.method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            return recipe.build(Parts(settings, facts))
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"these settings do not make a model: {error}") from error
