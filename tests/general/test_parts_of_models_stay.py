"""A lock (`tests/locked.py`): each part of noise, networks and codes at fixed odd inputs: five examples, no squares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from diffrep.codes import posteriors, priors
from diffrep.codes.autoregressive import Autoregressive
from diffrep.codes.posteriors import Code
from diffrep.config import Settings, override
from diffrep.data import load
from diffrep.denoising import build, detail, noise, observation, parameterisations, samplers, spacing, start, terms
from diffrep.denoising.alone import Alone
from diffrep.denoising.denoiser import Denoiser, Prediction
from diffrep.denoising.neighbours import by_neighbours
from diffrep.denoising.probability_flow import dequantised_log_likelihood, flow_log_likelihood, invert
from diffrep.errors import UserError
from diffrep.evaluation import mutual_information
from diffrep.kinds import ENCODERS
from diffrep.nets import blocks, decoders, encoders
from diffrep.nets.build import critic, generator, head
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.gap import Filled
from diffrep.runs import DataCard
from diffrep.shapes import Draws, Facts
from locked import hold, made, normal, seen_parts, whole

SHAPES = {"signal": (2, 9), "picture": (3, 6, 5), "volume": (1, 4, 5, 3), "vector": (7,)}
RNG = np.random.default_rng


def levels(*shape: int, bins: int = 9, seed: int = 0) -> torch.Tensor:
    """x at the middles of grey levels, most of them low."""
    return (2 * torch.from_numpy(RNG(seed).binomial(bins - 1, 0.2, shape)).float() + 1) / bins - 1


NOISES = {
    "ve": lambda: noise.VE(0.02, 30.0),
    "vp": lambda: noise.VP(0.2, 15.0),
    "subvp": lambda: noise.SubVP(0.2, 15.0),
    "cosine": lambda: noise.Cosine(-11.0, 12.0),
    "linear": lambda: noise.LinearGamma(-9.0, 4.0),
    "ends": lambda: noise.LinearGamma(-9.0, 4.0, learned=True),
    "learned": lambda: noise.LearnedGamma(-9.0, 4.0),
}
T = torch.tensor([0.0, 1e-6, 0.13, 0.5, 0.77, 1.0])


def of_noise(name: str) -> dict[str, Any]:
    process = made(NOISES[name])
    x, eps, t = normal(6, 2, 3), normal(6, 2, 3, seed=1), T
    slope, (f, g) = process.log_snr_slope(t[2:]), process.drift_diffusion(t[2:])
    facts = {
        "scales": process.scales(t),
        "log_snr": process.log_snr(t),
        "slope": slope,
        "f": f,
        "g": g,
        "time": process.time(process.log_snr(t[2:5])),
        "add": process.add(x, eps, t),
        "start": process.start_scale(),
        "prior": [process.prior_loss(x), process.prior_loss(x, (torch.full((2, 3), 0.2), torch.full((2, 3), 1.4)))],
        "weights": {key: seen(process, density) for key, density in DENSITIES.items()},
    }
    for key in spacing.SPACINGS:
        facts[f"times {key}"] = [spacing.times(process, 4, spacing=key), spacing.times(process, 3, 0.7, key)]
    for key, proposal in {"band": detail.band(-3.0, 2.0), "fine": detail.fine(30)}.items():
        of = detail.Levels(detail.likelihood, proposal)
        drawn = of.draw(process, Draws.of(2), 7)
        facts[f"levels {key}"] = [drawn, of.weight(process, drawn)]
    chain = detail.Levels(steps=7)
    facts["levels of a chain"] = chain.draw(process, Draws.of(2), 5)
    return facts


def seen(process: noise.Noise, density: detail.Density) -> torch.Tensor:
    return density(process, T[2:])


DENSITIES = {
    "uniform": detail.uniform,
    "likelihood": detail.likelihood,
    "high": detail.high_noise,
    "low": detail.low_noise,
    "semantic": detail.semantic,
    "band": detail.band(-3.0, 2.0),
    "coarse": detail.coarse(90),
    "balanced": detail.balanced(90),
    "fine": detail.fine(90),
    "share": detail.share(detail.fine(9), detail.coarse(9)),
}


class Network(nn.Module):
    """Something of x_t, its level, the code and what else is given."""

    def forward(self, x_t, log_snr, z=None, extra=None, drop=None):
        more = 0 if extra is None else extra.mean((1, 2, 3))
        own = 0.3 * log_snr.tanh() + more + (0 if z is None else z.mean(1))
        return torch.sin(x_t * 2 + own[:, None, None, None]) * 0.5


def facts_of(x: torch.Tensor, bins: int = 9) -> Facts:
    parts = load(((x + 1) / 2 * bins - 0.5).round().numpy().astype(np.uint8), levels=bins, layout="nchw")
    return DataCard.of(parts).facts(parts.train)


PREDICTS = ("eps", "x", "v", "score", "edm", "marginal")


def of_predicts(name: str) -> dict[str, Any]:
    x, t, z = levels(40, 2, 4, 3), torch.tensor([0.05, 0.3, 0.5, 0.8, 1.0]), normal(5, 3, seed=2)
    known, said = facts_of(x), {}
    for key, changes in {
        "": (),
        "one histogram": ("decoder.mixture=false",),
        "one place": ("decoder.by_place=false",),
        "neither": ("decoder.mixture=false", "decoder.by_place=false"),
    }.items():
        if key and name != "marginal":
            continue
        settings = override(Settings(), changes).decoder
        of = build.parameterisation(name, settings, known, observed=name in ("edm", "marginal"))
        observe = made(lambda of=of: observation.Observation((2, 4, 3), 3, 4, 1.0)) if of.fuses else None
        denoiser = Denoiser(Network(), noise.LinearGamma(-9.0, 4.0), of, observe)
        drop = torch.tensor([False, True, False, False, True])
        for given in (None, z):
            hat = denoiser(normal(5, 2, 4, 3, seed=4), t, given, None if given is None else drop)
            said[f"{key} {given is None}"] = [hat.x, hat.eps, hat.score]
        alone = of.alone(torch.tensor([-6.0, 9.0]))
        if alone is not None:
            at = torch.tensor([-3.0, 0.0, 2.0, 4.0, 8.0])
            said[f"{key} alone"] = [alone.loss(x[:5], normal(5, 2, 4, 3, seed=6), at), *vars_of(alone)]
    return said


def vars_of(alone: Alone) -> list[torch.Tensor]:
    return [value for value in vars(alone).values() if isinstance(value, torch.Tensor)]


def of_sampler(name: str) -> dict[str, Any]:
    process = noise.VP(0.2, 15.0)
    denoiser = Denoiser(Network(), process, parameterisations.EDM(0.5))
    x_1, facts = normal(3, 2, 4, 3), {}
    for steps, key in ((1, "log-snr"), (4, "log-snr"), (3, "time"), (5, "edm")):
        along = spacing.times(process, steps, spacing=key)
        for last in (True, False):
            facts[f"{steps} {key} {last}"] = samplers.sample(
                denoiser, process, x_1, samplers.STEPS[name], along, Draws.of(1), last
            )
    return facts


def of_flow() -> dict[str, Any]:
    process = noise.LinearGamma(-5.0, 4.0)
    denoiser = Denoiser(Network(), process, parameterisations.EDM(0.5))
    x, end = levels(3, 2, 4, 3), (torch.full((2, 4, 3), 0.1), torch.full((2, 4, 3), 1.3))
    return {
        "flow": flow_log_likelihood(denoiser, process, x, 3, Draws.of(0), probes=2),
        "to another end": flow_log_likelihood(denoiser, process, x, 2, Draws.of(0), end=end),
        "levels": dequantised_log_likelihood(denoiser, process, x, 3, Draws.of(0), bins=9),
        "inverted": invert(denoiser, process, x, 3),
        "pc": samplers.sample(denoiser, process, x, samplers.predictor_corrector(0.3, 2), T[2:].flip(0), Draws.of(0)),
        "cas": samplers.sample(denoiser, process, x, samplers.cas(0.4), T[2:].flip(0), Draws.of(0)),
    }


def of_terms() -> dict[str, Any]:
    x, x_0, eps = levels(5, 2, 3), normal(5, 2, 3) * 0.3, normal(5, 2, 3, seed=1)
    alpha, sigma = torch.linspace(0.9, 1.0, 5), torch.linspace(0.02, 0.3, 5)
    hat = Prediction.from_x(normal(5, 2, 3, seed=2), x_0, alpha, sigma)
    other = Prediction.from_eps(normal(5, 2, 3, seed=2), x_0, alpha, sigma)
    z, gamma = normal(5, 3), torch.linspace(-3, 2, 5)
    return {
        "denoising": terms.denoising(eps, hat, gamma.exp()),
        "steps": terms.diffusion_in_steps(eps, other, gamma, gamma - 0.4, 9),
        "reconstruction": terms.reconstruction(x, x_0, alpha, sigma, 9),
        "density": terms.density(x, x_0, alpha, sigma),
        "ends": [terms.data_end(x, x_0, alpha, sigma, bins) for bins in (None, 9)],
        "l1": terms.l1(z),
        "mmd": [terms.mmd(z, normal(5, 3, seed=7) + 0.3), terms.mmd(z[:1], z[1:2])],
        "fool": terms.fool(gamma),
        "judge": terms.judge(gamma, 0.3 * gamma),
        "sliced": terms.sliced_score(lambda x: -x + 0.1 * x**2, x_0, eps),
        "neighbours": [
            vars_of(by_neighbours(levels(9, *shape), 9, torch.tensor([-6.0, 9.0]))) for shape in ((1, 5, 4),)
        ],
        "starts": [
            [*of(noise.LinearGamma(-5.0, 1.0), z, gamma > 0)]
            for of in (
                start.StandardStart(),
                start.MatchedStart(x[0], x[1] ** 2),
                made(lambda: start.GaussianStart((2, 3), 3, 4)),
            )
        ],
        "patches": str([detail.coarse_patch(shape) for shape in ((1, 28, 28), (3, 64, 48), (1, 8, 8), (1, 200), (5,))]),
    }


def of_networks(kind: str) -> dict[str, Any]:
    """Encoders, decoders and generators of a shape: how many weights, and what they make."""
    shape, facts = SHAPES[kind], {}
    x, log_snr, z = normal(5, *shape), torch.linspace(-8, 9, 5), normal(5, 3, seed=1)
    drop, vector = torch.tensor([True, False, False, False, True]), kind == "vector"
    asked: dict[str, Callable[[], nn.Module]] = {
        "mlp": lambda: encoders.MLPEncoder(shape, 12, 2, time=True, dropout=0.2),
        "generator": lambda: generator(override(Settings(), ["decoder.width=4"]).decoder, shape, 3),
        "critic": lambda: critic(override(Settings(), ["decoder.width=4"]).decoder, shape),
        "head": lambda: head(3, 5),
    }
    how = Conditioning(3, 2.0, (1, 2), 2, 9, drawn=not vector)
    if vector:
        asked["decoder"] = lambda: decoders.MLPDecoder(shape, 12, 2, 0.1, how)
    else:
        asked["conv"] = lambda: encoders.ConvEncoder(shape, 4, time=True)
        asked["vit"] = lambda: encoders.ViT(shape, 2, 8, 2, 2, time=True)
        asked["decoder"] = lambda: decoders.UNet(shape, 4, (1, 2), 2, (1,), 0.1, how, 2)
        asked["filled"] = lambda: Filled(
            decoders.UNet(shape, 4, (1,)), decoders.UNet(shape, 4, (1,), conditioning=Conditioning(3))
        )
    if kind == "picture":
        asked["wideresnet"] = lambda: encoders.WideResNet(shape, 10, 1, time=True)
    for name, make in asked.items():
        net = made(make)
        parts = {"weights": seen_parts(dict(net.named_parameters()))}
        if name in ("decoder", "filled"):
            extra = None if name == "filled" else normal(5, 2, *shape[1:]) if not vector else normal(5, 2)
            for key, given in (("given", z), ("alone", None)):
                try:
                    parts[key] = net(x, log_snr, given, extra=extra, drop=None if given is None else drop)
                except (UserError, RuntimeError, ValueError) as mistake:
                    parts[key] = type(mistake).__name__
        else:
            of_code, timed = name in ("generator", "head"), name in ENCODERS
            parts["made"] = net(z) if of_code else net(x, log_snr) if timed else net(x)
        facts[name] = parts
    if not vector:
        padding = blocks.Padding(shape[1:], 4)
        facts["padded"] = [padding.pad(x), padding.crop(padding.pad(x)), blocks.space_to_depth(padding.pad(x), 2)]
        facts["deep"] = blocks.depth_to_space(blocks.space_to_depth(padding.pad(x), 2), 2)
    return facts


def of_codes() -> dict[str, Any]:
    """Posteriors and priors of codes whose numbers have unequal scales, and are not independent."""
    z = normal(60, 3) @ torch.tensor([[2.0, 0.5, 0.0], [0.0, 0.7, 0.3], [0.0, 0.0, 0.2]]) + torch.tensor(
        [1.0, 0.0, -2.0]
    )

    def body(time: bool = False) -> encoders.Encoder:
        return encoders.MLPEncoder((7,), 8, 1, time=time)

    facts: dict[str, Any] = {}
    for name, make in {
        "deterministic": lambda: posteriors.Deterministic(body(), 3),
        "gaussian": lambda: posteriors.Gaussian(body(), 3),
        "fixed": lambda: posteriors.FixedRate(body(), 3, 5.0),
        "categorical": lambda: posteriors.Categorical(body(), 6, 3),
        "timed": lambda: posteriors.Gaussian(body(True), 3, timed=True),
    }.items():
        posterior = made(make)
        code = posterior(normal(5, 7), torch.linspace(-3, 3, 5) if name == "timed" else None)
        facts[name] = [
            code.mean,
            code.spread,
            None if code.spread is None else code.sample(normal(*code.mean.shape, seed=3)),
        ]
        if code.spread is not None:
            facts[f"{name} rate"] = code.log_prob(code.mean)
    code = Code(z[:5], 0.3 * torch.ones(5, 3) * torch.arange(1, 4))
    for name, make in {
        "normal": lambda: priors.StandardNormal(3),
        "fitted": lambda: priors.FittedNormal(3),
        "mixture": lambda: priors.Mixture(3, 2),
        "whitened": lambda: priors.Whitened(3, priors.Mixture(3, 2)),
        "joint": lambda: priors.Joint(priors.FittedNormal(3)),
    }.items():
        prior = made(make)
        prior.fit(z)
        facts[f"prior {name}"] = [prior.sample(4, Draws.of(1)), prior.log_prob(z[:5]), prior.rate(code, z[5:10])]
    one = nn.functional.one_hot(torch.arange(12).reshape(6, 2) % 3, 3).flatten(1).float()
    auto = made(lambda: Autoregressive(2, 3))
    facts["autoregressive"] = [auto.sample(4, Draws.of(1)), auto.log_prob(one), auto.log_probabilities(one)]
    told = mutual_information.mutual_information(code, Draws.of(2), 2)
    facts["told"] = [told.lower, told.upper, *told.gap(torch.linspace(1, 2, 5))]
    return facts


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"noise {name}": lambda name=name: of_noise(name) for name in NOISES},
    **{f"predicts {name}": lambda name=name: of_predicts(name) for name in PREDICTS},
    **{f"sampler {name}": lambda name=name: of_sampler(name) for name in samplers.STEPS},
    **{f"networks of a {kind}": lambda kind=kind: of_networks(kind) for kind in SHAPES},
    "flow": of_flow,
    "terms": of_terms,
    "codes": of_codes,
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_model_stays(name):
    hold("parts", name, PARTS[name]())


def test_nothing_is_kept_of_what_is_gone():
    whole("parts", PARTS)
