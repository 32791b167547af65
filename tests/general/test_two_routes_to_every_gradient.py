"""Oracle 5: the gradient of every term, against central differences of the same term written in numpy's float64.

What stops a gradient is a copy that does not move in the second route; what passes straight through is its soft form;
what gates it is a share of a copy that moves. A term that is added without a row fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, ndtr
from torch import Tensor, nn

from diffrep.codes.priors import StandardNormal
from diffrep.denoising import terms
from diffrep.denoising.denoiser import Prediction
from diffrep.models import contrast
from diffrep.models.autoencoder import GeneratorDecoder
from two_routes import B, D, Point, Values, held, log_normal, normal, positive, same_numbers, square

__all__ = ["same_numbers"]

# terms of denoising/terms.py: what is called, its second route, what it is called with


def said(eps_hat: Tensor, sigma: Tensor | None = None) -> Prediction:
    one = torch.ones(len(eps_hat), dtype=eps_hat.dtype)
    return Prediction(eps_hat, eps_hat, one, one if sigma is None else sigma)


def steps(gamma_t, gamma_s, gap):
    return 3.5 * np.expm1(gamma_t - gamma_s) * square(gap)


def levels_of(x_0: np.ndarray, alpha: np.ndarray, sigma: np.ndarray, own: np.ndarray, bins: int) -> np.ndarray:
    centres = 2 * (np.arange(bins) + 0.5) / bins - 1
    scores = -0.5 * ((x_0 / alpha[:, None])[..., None] - centres) ** 2 / (sigma / alpha)[:, None, None] ** 2
    chosen = np.take_along_axis(scores, own[..., None], -1)[..., 0]
    return (logsumexp(scores, -1) - chosen).sum(-1)


def multiquadric(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return 2 * D / (2 * D + ((a[:, None] - b) ** 2).sum(-1))


def discrepancy(v: Values) -> np.ndarray:
    others = 1 - np.eye(B)
    own = (others * (multiquadric(v["z"], v["z"]) + multiquadric(v["prior"], v["prior"]))).sum(1) / (B - 1)
    return own - 2 * multiquadric(v["z"], v["prior"]).mean(1)


OWN = np.random.default_rng(1).integers(0, 8, (B, D))
CENTRES = 2 * (OWN + 0.5) / 8 - 1
TERMS: dict[str, tuple[Callable[..., Tensor], Callable[[Values], np.ndarray], Values]] = {
    "denoising": (
        lambda eps, eps_hat, weight: terms.denoising(eps, said(eps_hat), weight),
        lambda v: 0.5 * v["weight"] * square(v["eps"] - v["eps_hat"]),
        {"eps": normal(B, D), "eps_hat": normal(B, D), "weight": positive(B)},
    ),
    "diffusion_in_steps": (
        lambda eps, eps_hat, gamma_t, gamma_s: terms.diffusion_in_steps(eps, said(eps_hat), gamma_t, gamma_s, 7),
        lambda v: steps(v["gamma_t"], v["gamma_s"], v["eps"] - v["eps_hat"]),
        {"eps": normal(B, D), "eps_hat": normal(B, D), "gamma_t": 1 + normal(B), "gamma_s": normal(B)},
    ),
    "density": (
        terms.density,
        lambda v: -log_normal(v["x"], v["x_0"] / v["alpha"][:, None], (v["sigma"] / v["alpha"])[:, None]),
        {"x": normal(B, D), "x_0": normal(B, D), "alpha": positive(B), "sigma": positive(B)},
    ),
    "reconstruction": (
        lambda x_0, alpha, sigma: terms.reconstruction(torch.tensor(CENTRES), x_0, alpha, sigma, 8),
        lambda v: levels_of(v["x_0"], v["alpha"], v["sigma"], OWN, 8),
        {"x_0": CENTRES + 0.2 * normal(B, D), "alpha": positive(B), "sigma": 0.2 * positive(B)},
    ),
    "data_end": (
        lambda x_0, alpha, sigma: terms.data_end(torch.tensor(CENTRES), x_0, alpha, sigma, 8),
        lambda v: levels_of(v["x_0"], v["alpha"], v["sigma"], OWN, 8),
        {"x_0": CENTRES + 0.2 * normal(B, D), "alpha": positive(B), "sigma": 0.2 * positive(B)},
    ),
    "sliced_score": (  # of a score of the third degree, whose Jacobian is diag(slope) + 3 x^2; x_t itself is stopped
        lambda slope, v: terms.sliced_score(lambda x: slope * x + x**3, torch.tensor(CENTRES), v),
        lambda v: (
            ((v["slope"] + 3 * CENTRES**2) * v["v"] ** 2).sum(-1) + 0.5 * square(v["slope"] * CENTRES + CENTRES**3)
        ),
        {"slope": normal(D), "v": normal(B, D)},
    ),
    "l1": (terms.l1, lambda v: np.abs(v["z"]).sum(-1), {"z": normal(B, D)}),
    "mmd": (terms.mmd, discrepancy, {"z": normal(B, D), "prior": normal(B, D)}),
    "fool": (terms.fool, lambda v: 0.5 * (v["critic_of_fake"] - 1) ** 2, {"critic_of_fake": normal(B)}),
    "judge": (
        terms.judge,
        lambda v: 0.5 * (v["critic_of_real"] - 1) ** 2 + 0.5 * v["critic_of_fake"] ** 2,
        {"critic_of_real": normal(B), "critic_of_fake": normal(B)},
    ),
}


@pytest.mark.parametrize("name", TERMS)
def test_a_term(name):
    held(*TERMS[name], exact=1e-4 if name in ("reconstruction", "data_end", "mmd") else 1e-6)  # in float32 inside


# losses between views


def cross_entropies(v: Values) -> np.ndarray:
    both = np.concatenate([v["a"], v["b"]])
    both = both / np.linalg.norm(both, axis=1, keepdims=True)
    scores = both @ both.T / 0.7 + np.diag(np.full(2 * B, -np.inf))
    partner = scores[np.arange(2 * B), (np.arange(2 * B) + B) % (2 * B)]
    return (logsumexp(scores, 1) - partner).reshape(2, B).mean(0)


def variance_and_covariance(v: Values) -> np.ndarray:
    narrow, tangled = 0.0, 0.0
    for z in (v["a"], v["b"]):
        covariance = np.cov(z.T)
        narrow += np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)).mean()
        tangled += ((covariance**2).sum() - (np.diag(covariance) ** 2).sum()) / D
    return 25 * ((v["a"] - v["b"]) ** 2).mean(1) + 25 * narrow + tangled


VIEWS = {
    "nt_xent": (lambda a, b: contrast.nt_xent(a, b, 0.7)["contrast"], cross_entropies),
    "vicreg": (lambda a, b: sum(contrast.vicreg(a, b).values()), variance_and_covariance),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_loss_between_views(name):
    held(*VIEWS[name], {"a": 0.7 * normal(B, D), "b": 0.7 * normal(B, D)}, exact=1e-5)


def cells(v: Values) -> np.ndarray:
    """-log of a Gaussian's mass on each of eight cells, the outer ones open."""
    spread = np.exp(v["log_spread"])
    low, high = ((2 * (OWN + k) / 8 - 1 - v["mean"]) / spread for k in (0, 1))
    low, high = np.where(OWN == 0, -np.inf, low), np.where(OWN == 7, np.inf, high)
    return -np.log(ndtr(high) - ndtr(low)).sum(-1)


@pytest.mark.parametrize("bins", [8, None])
def test_what_a_generator_leaves_of_x(bins):
    """The mass of a cell, or a density, in the mean and the learned spread."""
    values = {"mean": CENTRES + 0.3 * normal(B, D), "log_spread": np.log(0.3 * positive(D))}

    def code(mean, log_spread):
        return GeneratorDecoder(bins, Point(np.eye(D)), StandardNormal(D), nn.Identity(), log_spread).surprise(
            torch.tensor(CENTRES), mean
        )

    plain = lambda v: -log_normal(CENTRES, v["mean"], np.exp(v["log_spread"]))  # noqa: E731
    held(code, cells if bins else plain, values, exact=1e-5)


def public(module) -> set[str]:
    return {
        n for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__ and n[0] != "_"
    }


def test_every_term_has_a_row():
    """A term of the bound, or a loss between views, that is added needs its second route."""
    assert public(terms) == set(TERMS) and public(contrast) == set(VIEWS)
