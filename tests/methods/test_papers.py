"""Each recipe beside its paper: noise process, terms, weight over the noise axis, and what its code is of.

The table is written from the papers, by hand. Everything is measured on the model that the recipe builds: its scales at
eleven times against the formula of the paper, the loss of a step against the weight that the paper states.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from diffrep import config
from diffrep.codes.posteriors import Normal
from diffrep.methods.catalog import METHODS, build
from diffrep.methods.parts import Facts
from diffrep.models.latent_diffusion import LatentDiffusion
from diffrep.shapes import Batch, Draws

SHAPE, CODE = (1, 6, 5), 3
SMALL = ("decoder.width=4", "decoder.multipliers=[1, 2]", "encoder.width=4", "encoder.depth=1", f"code.dim={CODE}")
T = torch.linspace(0.01, 0.99, 11)

Scales = Callable[[Tensor], tuple[Tensor, Tensor]]


def ve(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = 1, sigma = 0.01 (50 / 0.01)^t (Song et al. 2021, Section 3.4 and Appendix C; DRL, Section 4)."""
    return torch.ones_like(t), 0.01 * 5000**t


def vp(t: Tensor) -> tuple[Tensor, Tensor]:
    """DDPM in continuous time: alpha^2 = exp(-int_0^t 0.1 + 19.9 s ds), variance preserving (Song et al. 2021)."""
    alpha2 = torch.exp(-(0.1 * t + 19.9 * t**2 / 2))
    return alpha2.sqrt(), (1 - alpha2).sqrt()


def cosine(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = cos, sigma = sin of an angle that is linear in t (Nichol and Dhariwal 2021, Section 3.2); this library
    pins its ends, at log-SNR 13.3 and -15."""
    first, last = (math.atan(math.exp(-log_snr / 2)) for log_snr in (13.3, -15.0))
    angle = first + t * (last - first)
    return angle.cos(), angle.sin()


@dataclass(frozen=True)
class Paper:
    """What a paper says. noise: its process; "learned": VDM's, by its ends. weight: w in 1/2 w |eps - eps_hat|^2, of
    (alpha, sigma, -d log_snr / dt). code: of what the encoder is a function, and of which kind."""

    noise: Scales | str | None = None
    terms: tuple[str, ...] = ("denoising",)
    weight: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda alpha, sigma, slope: torch.ones_like(sigma)
    code: str | None = None
    bound: bool = False


def elbo(alpha: Tensor, sigma: Tensor, slope: Tensor) -> Tensor:
    """VDM, Eq. 17: 1/2 gamma'(t) |eps - eps_hat|^2."""
    return slope


def signal_to_noise(alpha: Tensor, sigma: Tensor, slope: Tensor) -> Tensor:
    """PDAE, Section 3.4: (1 / (1 + SNR))^0.9 (SNR / (1 + SNR))^0.1 = sigma^1.8 alpha^0.2 at alpha^2 + sigma^2 = 1."""
    return sigma**1.8 * alpha**0.2


PAPERS: dict[str, Paper] = {
    "ddpm": Paper(vp, bound=True),  # Ho et al. 2020, Eq. 14: |eps - eps_hat|^2, t uniform
    "dsm": Paper(ve, bound=True),  # Song et al. 2021, Eq. 7 at lambda = sigma^2
    "ssm": Paper(ve, ("sliced",), bound=True),  # Song et al. 2019, Eq. 8
    "drl": Paper(ve, code="point of x"),  # Abstreiter et al. 2021, Eq. 7
    "vdrl": Paper(ve, ("denoising", "rate"), code="Gaussian of x", bound=True),  # the same, Eq. 10
    "tdrl": Paper(ve, code="point of x and t"),  # the same, Section 3.2; Mittal et al. 2022
    "tvdrl": Paper(ve, ("denoising", "rate"), code="Gaussian of x and t"),
    "vdm": Paper("learned", ("diffusion",), elbo, bound=True),  # Kingma et al. 2021, Eq. 17; its ends are pinned here
    "vae-vdm": Paper("learned", ("diffusion", "rate"), elbo, code="Gaussian of x", bound=True),
    "adversarial": Paper(ve, ("denoising", "fool"), bound=True),  # Jolicoeur-Martineau et al. 2021, Section 4
    "adversarial-drl": Paper(ve, ("denoising", "fool"), code="point of x"),
    "diffae": Paper(vp, code="point of x"),  # Preechakul et al. 2022, Eq. 6
    "infodiffusion": Paper(vp, ("denoising", "mmd"), code="Gaussian of x", bound=True),  # Wang et al. 2023, Eq. 5
    "pdae": Paper(vp, weight=signal_to_noise, code="point of x"),
    "soda": Paper(cosine, code="point of a view of x"),  # Hudson et al. 2023, Section 3
    "soda-simclr": Paper(cosine, ("denoising", "contrast"), code="point of a view of x"),  # and Chen et al. 2020, Eq. 1
    "ae": Paper(None, ("reconstruction",), code="point of x"),
    "dae": Paper(None, ("reconstruction",), code="point of a view of x"),  # Vincent et al. 2008: of a corrupted x
    "mae": Paper(
        None, ("reconstruction",), code="point of a view of x"
    ),  # He et al. 2022: of the patches that are seen
    "vae": Paper(None, ("reconstruction", "rate"), code="Gaussian of x", bound=True),
    "beta-vae": Paper(None, ("reconstruction", "rate"), code="Gaussian of x", bound=True),
    "simclr": Paper(None, ("contrast",), code="point of a view of x"),
    "vicreg": Paper(None, ("invariance", "variance", "covariance"), code="point of a view of x"),
    "byol": Paper(None, ("bootstrap",), code="point of a view of x"),
    "classifier": Paper(None, ("label",), code="point of x"),
    "random-encoder": Paper(None, (), code="point of x"),
}
DIFFUSION = [name for name, paper in PAPERS.items() if paper.noise is not None]


TAUGHT_COARSELY = (
    "drl",
    "vdrl",
    "tdrl",
    "tvdrl",
    "diffae",
    "soda",
    "soda-simclr",
)  # here; their papers take uniform times


def made(name: str, *changes: str):
    """The recipe with the level of detail of its paper, and with every example denoised."""
    of_paper = ["detail=uniform"] if name in TAUGHT_COARSELY else []
    of_paper += ["views.denoise_every=1"] if name == "soda-simclr" else []
    settings = config.override(config.Settings(method=name), [*SMALL, *of_paper, *changes])
    return build(settings, Facts(SHAPE, None, classes=3)).train()


def batch(size: int = 64) -> Batch:
    x = torch.randn(size, *SHAPE, generator=torch.Generator().manual_seed(1))
    return Batch(x, torch.arange(size), label=torch.arange(size) % 3, draws=Draws.of(0))


def test_every_method_has_its_paper():
    """A new method is written down here too, from its paper; the facts of the catalogue agree with it."""
    assert PAPERS.keys() == METHODS.keys()
    for name, paper in PAPERS.items():
        method = METHODS[name]
        noise = paper.noise if paper.noise is None or isinstance(paper.noise, str) else paper.noise.__name__
        assert (method.noise, method.has_code, method.has_bound) == (noise, paper.code is not None, paper.bound), name


@pytest.mark.parametrize("name", DIFFUSION)
def test_the_noise_is_that_of_the_paper(name):
    """alpha and sigma at eleven times; of VDM's learned process the ends, and that it preserves the variance."""
    paper, noise = PAPERS[name].noise, made(name).noise
    alpha, sigma = noise.scales(T)
    if isinstance(paper, str):
        assert any(p.requires_grad for p in noise.parameters())
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(T))
        ends = noise.log_snr(torch.tensor([0.0, 1.0]))
        torch.testing.assert_close(ends, torch.tensor([13.3, -5.0]), rtol=1e-4, atol=1e-3)  # VDM, Appendix H
        return
    expected = paper(T.double())
    torch.testing.assert_close(alpha.double(), expected[0], rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(sigma.double(), expected[1], rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in PAPERS if name != "random-encoder"])
def test_the_terms_are_those_of_the_paper(name):
    """Their names; those of the decoder come before those of the code."""
    assert tuple(made(name).loss(batch())) == PAPERS[name].terms


@pytest.mark.parametrize("name", [name for name in DIFFUSION if name != "ssm"])
def test_the_weight_is_that_of_the_paper(name):
    """The first term of each example is 1/2 w |eps - eps_hat|^2 with the paper's w at its t, and t is uniform."""
    model, paper = made(name), PAPERS[name]
    step = model.noised(batch())
    alpha, sigma = model.noise.scales(step.t)
    w = paper.weight(alpha, sigma, -model.noise.log_snr_slope(step.t))
    error = ((step.eps - step.prediction.eps) ** 2).flatten(1).sum(1)
    loss = model.loss(batch())[paper.terms[0]]
    torch.testing.assert_close(loss, 0.5 * w * error, rtol=1e-4, atol=1e-6)
    t = step.t.sort().values
    assert (t - torch.arange(64) / 64).abs().max() < 1 / 32


def test_sliced_score_matching_is_weighed_by_the_variance():
    """lambda(t) = sigma^2, the weight under which denoising score matching is |eps - eps_hat|^2: at any t alike."""
    step = made("ssm").noised(batch())
    torch.testing.assert_close(step.weight, torch.ones(64))


@pytest.mark.parametrize("name", [name for name, paper in PAPERS.items() if paper.code])
def test_the_code_is_what_the_paper_says(name):
    """Of x or of a view: what the encoder is given in training; a point or a Gaussian; one for all t or not."""
    kind, _, of = PAPERS[name].code.partition(" of ")
    model, given = made(name), []
    if name == "random-encoder":  # nothing is trained
        assert not model.players()["model"]
    else:
        model.posterior.encoder.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].detach()))
        model.loss(batch())
        assert given and torch.equal(given[0], batch().x) == ("view" not in of)
    model.eval()
    early, late = (model.encode(batch().x, t) for t in ((0.1, 0.9) if "t" in of.split() else (None, None)))
    assert (early.spread is not None) == (kind == "Gaussian") and (kind == "point" or early.family == Normal())
    assert torch.equal(early.mean, late.mean) == ("t" not in of.split())
    assert model.encode(batch().x[:1], 0.5 if "t" in of.split() else None).mean.shape == (1, CODE)


@pytest.mark.parametrize("name, factor", [("vdrl", 1.0), ("tvdrl", 1.0), ("vae", 1.0), ("beta-vae", 4.0)])
def test_the_rate_is_the_divergence_from_the_normal(name, factor):
    """KL(N(m, s^2) || N(0, 1)) = 1/2 (m^2 + s^2 - 1 - 2 log s), summed; charged fourfold by Higgins et al. 2017."""
    changes = ("code.beta=1.0",) if "drl" in name else ()
    model, given = made(name, *changes), []
    model.posterior.register_forward_hook(lambda module, inputs, code: given.append(code))
    loss = model.loss(batch())["rate"]
    m, s = given[0].mean, given[0].spread
    torch.testing.assert_close(loss, factor * 0.5 * (m**2 + s**2 - 1 - 2 * s.log()).sum(1), rtol=1e-4, atol=1e-5)


def test_what_single_papers_add():
    """DiffAE fits a latent diffusion to its codes; PDAE withholds half of them; VDRL's prior is N(0, I), and so is that
    of InfoDiffusion; the adversaries have a critic."""
    assert any(isinstance(module, LatentDiffusion) for module in made("diffae").prior.modules())
    assert made("pdae").drop == 0.5
    for name in ("vdrl", "infodiffusion"):
        z = made(name).prior.sample(4000, Draws.of(0))
        assert z.mean().abs() < 0.05 and (z.std() - 1).abs() < 0.05
    for name in ("adversarial", "adversarial-drl"):
        assert set(made(name).players()) == {"model", "critic"}
