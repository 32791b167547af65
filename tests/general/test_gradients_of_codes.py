"""Oracle 5 for codes: draws, heads, gates, what priors charge and what weights make of it, by two routes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor, nn

from diffrep.codes.autoregressive import Autoregressive
from diffrep.codes.flow import Flow
from diffrep.codes.posteriors import Categorical, Code, Deterministic, Family, FixedRate, Gaussian, OneHot, Posterior
from diffrep.codes.priors import Afterwards, Categories, FittedNormal, Joint, Mixture, Prior, StandardNormal, Whitened
from diffrep.models.diffusion import gated
from diffrep.models.latent_diffusion import LatentDiffusion
from diffrep.models.loss_weights import Annealed, Constant, Cyclic, FreeBits, TargetRate, WarmUp, Weight
from diffrep.nets.decoders import Decoder
from diffrep.nets.gap import Filled
from diffrep.shapes import Draws
from two_routes import (
    RNG,
    B,
    D,
    Line,
    Point,
    Values,
    central,
    gumbels,
    held,
    log_normal,
    normal,
    positive,
    same_numbers,
    sigmoid,
    softmax,
)

__all__ = ["same_numbers"]


def subclasses(kind: type) -> set[str]:
    """All that are written in diffrep, by name."""
    own = {found for child in kind.__subclasses__() for found in (child, *child.__subclasses__())}
    return {found.__name__ for found in own if found.__module__.startswith("diffrep.")}


def test_a_draw_of_a_category_is_hard_and_its_gradient_soft():
    """Forwards one-hot, backwards the Gumbel-softmax at its temperature."""
    noise, mean = normal(B, 6), softmax(normal(B, 2, 3)).reshape(B, 6)

    def soft(v: Values) -> np.ndarray:
        return softmax((np.log(v["mean"]) + gumbels(noise)).reshape(B, 2, 3) / 0.7).reshape(B, 6)

    tensor = torch.tensor(mean, requires_grad=True)
    z = OneHot(3, 0.7).draw(tensor, tensor, torch.tensor(noise))
    largest = soft({"mean": mean}).reshape(B, 2, 3).argmax(-1)
    np.testing.assert_allclose(z.detach(), np.eye(3)[largest].reshape(B, 6), atol=1e-12)
    by = normal(B, 6)
    (torch.tensor(by) * z).sum().backward()
    np.testing.assert_allclose(tensor.grad, central(soft, {"mean": mean}, "mean", by), rtol=1e-5, atol=1e-7)


def test_a_gaussian_draw():
    """z = mean + spread noise."""
    noise = normal(B, D)
    values = {"mean": normal(B, D), "spread": positive(B, D)}
    held(
        lambda mean, spread: Code(mean, spread).sample(torch.tensor(noise)),
        lambda v: v["mean"] + v["spread"] * noise,
        values,
    )


X = normal(B, D)
BIAS = normal(6)
HEADS: dict[str, tuple[Callable[[], Posterior], str, int, Callable[[np.ndarray], np.ndarray]]] = {
    # class -> one, the layer that says the code, its outputs, and the second route from them to mean and spread
    "Deterministic": (lambda: Deterministic(Line(np.eye(D)), 2), "mean", 2, lambda h: h),
    "Gaussian": (
        lambda: Gaussian(Line(np.eye(D)), 2),
        "heads",
        4,
        lambda h: np.concatenate([h[:, :2], np.log1p(np.exp(h[:, 2:] - 0.5)) + 1e-3], 1),
    ),
    "FixedRate": (
        lambda: FixedRate(Line(np.eye(D)), 2, 1.5),
        "mean",
        2,
        lambda h: np.concatenate(
            [
                np.sqrt(2 * (1 - np.exp(-1.5))) * h / np.linalg.norm(h, axis=1, keepdims=True),
                np.full((B, 2), math.exp(-0.75)),
            ],
            1,
        ),
    ),
    "Categorical": (
        lambda: Categorical(Line(np.eye(D)), 6, 3),
        "scores",
        6,
        lambda h: np.concatenate(
            [p := softmax(h.reshape(B, 2, 3)).reshape(B, 6), np.sqrt(p * (1 - p))],
            1,
        ),
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_what_an_encoder_says(name):
    """Mean and spread of each kind of code, in the weights of the layer that says them."""
    make, layer, outputs, route = HEADS[name]
    posterior, bias = make().double(), BIAS[:outputs]

    def code(weight: Tensor) -> Tensor:
        given = {f"{layer}.weight": weight, f"{layer}.bias": torch.tensor(bias)}
        found = torch.func.functional_call(posterior, given, torch.tensor(X))
        return (found.mean if found.spread is None else torch.cat([found.mean, found.spread], 1)).double()

    held(code, lambda v: route(X @ v["weight"].T + bias), {"weight": normal(outputs, D)}, exact=1e-5)


def test_every_code_has_a_row():
    assert subclasses(Posterior) == set(HEADS) and subclasses(Family) == {"Normal", "OneHot"}


def test_a_gate_scales_what_a_code_is_taught():
    """The decoder sees the code itself; the encoder gets `gate` times the gradient, none at 0 and all at 1."""
    gate, frozen = np.array([0.0, 0.3, 1.0, 0.5, 2.0]), normal(B, D)
    held(
        lambda z, weight: (gated(z, torch.tensor(gate)) @ weight) ** 2,
        lambda v: ((frozen + gate[:, None] * (v["z"] - frozen)) @ v["weight"]) ** 2,
        {"z": frozen, "weight": normal(D)},
    )


class Sum(Decoder):
    """x_t W', or z W' where there is a code, in float64."""

    def __init__(self, weight: np.ndarray):
        nn.Module.__init__(self)
        self.weight, self.null = nn.Parameter(torch.tensor(weight)), nn.Parameter(torch.zeros(1))

    def body(self, h, conditions, z):
        return h

    def forward(self, x_t, log_snr, z=None, extra=None, drop=None, covariate=None):
        return (x_t if z is None else z) @ self.weight.T


def test_a_gap_moves_the_plain_decoder_only_where_the_code_is_withheld():
    """PDAE: plain + gap where there is a code, with plain stopped; plain alone, which learns, where there is none."""
    drop, z = np.array([True, False, False, True, False]), normal(B, 2)
    values = {"plain": normal(D, D), "gap": normal(D, 2)}
    stopped, by = values["plain"], normal(B, D)

    def route(v: Values) -> np.ndarray:
        return np.where(drop[:, None], X @ v["plain"].T, X @ stopped.T + z @ v["gap"].T)

    net = Filled(Sum(values["plain"]), Sum(values["gap"]))
    found = net(torch.tensor(X), torch.zeros(B), torch.tensor(z), drop=torch.tensor(drop))
    (torch.tensor(by) * found).sum().backward()
    np.testing.assert_allclose(found.detach(), route(values))
    for name, part in (("plain", net.plain), ("gap", net.gap)):
        np.testing.assert_allclose(part.weight.grad, central(route, values, name, by), rtol=1e-6, atol=1e-8)


# what a prior charges: the KL, or log q(z | x) - log p(z) of a draw, in all that training moves

WHITENING = np.tril(normal(D, D)) + 2 * np.eye(D)


def full_normal(z: np.ndarray, mean: np.ndarray, factor: np.ndarray) -> np.ndarray:
    white = np.linalg.solve(factor, (z - mean).T).T
    return log_normal(white, 0.0, 1.0) - np.log(np.diag(factor)).sum()


def mixture(z: np.ndarray, v: Values) -> np.ndarray:
    weights = v["scores"] - logsumexp(v["scores"])
    rows = zip(weights, v["means"], np.exp(v["log_spreads"]), strict=True)
    return logsumexp([weight + log_normal(z, mean, spread) for weight, mean, spread in rows], 0)


def fitted_normal() -> FittedNormal:
    found = FittedNormal(D).double()
    found.mean.copy_(torch.tensor(X[0])), found.factor.copy_(torch.tensor(WHITENING))
    return found


def afterwards() -> Afterwards:
    found = Afterwards(D, 2).double()
    found.scores.copy_(torch.tensor([0.3, 0.7]).log()), found.means.copy_(torch.tensor(X[:2]))
    found.whitening.copy_(torch.tensor(np.stack([WHITENING, WHITENING.T]))), found.fitted.fill_(True)
    return found


def whitened() -> Whitened:
    found = Whitened(D, StandardNormal(D)).double()
    found.normal = fitted_normal()
    return found


def log_afterwards(z: np.ndarray) -> np.ndarray:
    rows = [
        math.log(w) + log_normal((z - m) @ u, 0.0, 1.0) + np.log(np.diag(u)).sum()
        for w, m, u in ((0.3, X[0], WHITENING), (0.7, X[1], WHITENING.T))
    ]
    return logsumexp(rows, 0)


MIXED = {"scores": normal(2), "means": normal(2, D), "log_spreads": 0.3 * normal(2, D)}
DENSITIES: dict[str, tuple[Callable[[], Prior], Values, Callable[[np.ndarray, Values], np.ndarray]]] = {
    # class -> a prior, its parameters, log p(z)
    "FittedNormal": (fitted_normal, {}, lambda z, v: full_normal(z, X[0], WHITENING)),
    "Whitened": (whitened, {}, lambda z, v: full_normal(z, X[0], WHITENING)),
    "Mixture": (lambda: Mixture(D, 2).double(), MIXED, mixture),
    "Joint": (
        lambda: Joint(Mixture(D, 2)).double(),
        {f"prior.{k}": v for k, v in MIXED.items()},
        lambda z, v: mixture(z, {k.removeprefix("prior."): u for k, u in v.items()}),
    ),
    "Afterwards": (afterwards, {}, lambda z, v: log_afterwards(z)),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_what_a_prior_charges_for_a_draw(name):
    """log q(z | x) - log p(z) at z = mean + spread noise, in the code and in the prior's own parameters."""
    make, own, log_p = DENSITIES[name]
    prior, noise = make(), normal(B, D)

    def code(mean: Tensor, spread: Tensor, **parameters: Tensor) -> Tensor:
        q = Code(mean, spread)
        given = {f"prior.{k}": v for k, v in parameters.items()}
        return torch.func.functional_call(Asked(prior), given, (q, q.sample(torch.tensor(noise))))

    def route(v: Values) -> np.ndarray:
        z = v["mean"] + v["spread"] * noise
        return log_normal(z, v["mean"], v["spread"]) - log_p(z, v)

    held(code, route, {"mean": normal(B, D), "spread": positive(B, D), **own}, exact=1e-5)


class Asked(nn.Module):
    """What a prior charges, as a module."""

    def __init__(self, prior: Prior):
        super().__init__()
        self.prior = prior

    def forward(self, code, z):
        return self.prior.rate(code, z)


@pytest.mark.parametrize("make", [StandardNormal, lambda dim: Afterwards(dim, 2)], ids=["normal", "not yet fitted"])
def test_the_divergence_from_a_standard_normal(make):
    """KL(N(mean, spread^2) || N(0, I)) in closed form, which z has no part in."""
    held(
        lambda mean, spread: make(D).rate(Code(mean, spread), mean),
        lambda v: 0.5 * (v["mean"] ** 2 + v["spread"] ** 2 - 1 - 2 * np.log(v["spread"])).sum(1),
        {"mean": normal(B, D), "spread": positive(B, D)},
    )


def test_what_independent_categories_charge():
    """sum p (log p - log prior), in the probabilities and in the prior's scores."""
    prior, z = Categories(2, 3).double(), np.zeros((B, 6))

    def route(v: Values) -> np.ndarray:
        log_prior = v["scores"] - logsumexp(v["scores"], 1, keepdims=True)
        return (v["mean"] * (np.log(v["mean"]) - log_prior.flatten())).sum(1)

    held(
        lambda mean, scores: torch.func.functional_call(
            Asked(prior), {"prior.scores": scores}, (Code(mean, mean, OneHot(3)), torch.tensor(z))
        ),
        route,
        {"mean": softmax(normal(B, 2, 3)).reshape(B, 6), "scores": normal(2, 3)},
    )


def test_what_categories_charge_that_know_those_before_them():
    """Each variable given the ones before it, as drawn: no gradient and no number comes from those after it."""
    prior, z = Autoregressive(2, 3, 4).double(), np.eye(3)[RNG.integers(0, 3, (B, 2))].reshape(B, 6)
    w1, b1, w2, b2 = (p.detach().numpy() for p in (*prior.inner.parameters(), *prior.outer.parameters()))
    seen, heard = np.zeros((8, 6)), np.zeros((6, 8))
    seen[:4, :3], seen[4:, :], heard[3:, :4] = 1, 1, 1

    def route(v: Values) -> np.ndarray:
        inner = v["z"] @ (seen * w1).T + b1
        scores = ((inner * sigmoid(inner)) @ (heard * v["outer"]).T + b2).reshape(B, 2, 3)
        log_p = (scores - logsumexp(scores, -1, keepdims=True)).reshape(B, 6)
        return (v["mean"] * (np.log(v["mean"]) - log_p)).sum(1)

    held(
        lambda mean, z, outer: torch.func.functional_call(
            Asked(prior), {"prior.outer.weight": outer}, (Code(mean, mean, OneHot(3)), z)
        ),
        route,
        {"mean": softmax(normal(B, 2, 3)).reshape(B, 6), "z": z, "outer": w2},
    )


def test_what_a_latent_diffusion_charges():
    """With a network that says nothing the bound is closed: EDM's denoiser of N(0, I), both ends, four draws each."""
    prior = LatentDiffusion(D).double()
    nn.init.zeros_(prior.model.denoiser.network.out.weight)
    z = normal(B, D)
    draws = Draws.of(int(torch.tensor(z).sum().view(torch.int64)))
    t, eps = draws.stratified(4 * B).double().numpy(), draws.normal(4 * B, D).double().numpy()
    draws.uniform(4 * B)
    last = draws.normal(4 * B, D).double().numpy()
    scales = lambda gamma: (np.sqrt(sigmoid(-gamma)), np.sqrt(sigmoid(gamma)))  # noqa: E731

    def route(v: Values) -> np.ndarray:
        x, (a, s) = np.tile(v["z"], (4, 1)), (u[:, None] for u in scales(-10 + 15 * t))
        x_t = a * x + s * eps
        eps_hat = (x_t - a * (a * x_t)) / s  # E[x | x_t] = alpha x_t for N(0, I) and alpha^2 + sigma^2 = 1
        diffusion = 7.5 * ((eps - eps_hat) ** 2).sum(1)
        (a_0, s_0), (a_1, s_1) = scales(-10.0), scales(5.0)
        start = 0.5 * (s_1**2 + (a_1 * x) ** 2 - 1 - 2 * np.log(s_1)).sum(1)
        end = -log_normal(x, x + s_0 / a_0 * last, s_0 / a_0)
        return (diffusion + start + end).reshape(4, B).mean(0)

    tensor, by = torch.tensor(z, requires_grad=True), normal(B)
    said = -prior.log_prob(tensor)
    np.testing.assert_allclose(said.detach(), route({"z": z}), rtol=1e-4)
    (torch.tensor(by) * said).sum().backward()
    np.testing.assert_allclose(tensor.grad, central(route, {"z": z}, "z", by), rtol=1e-3, atol=1e-3)


def test_what_a_flow_charges():
    """Its density is another library's; what is ours is the sign and the draw."""
    prior, noise = Flow(D).double(), normal(B, D)

    def log_p(z: np.ndarray) -> np.ndarray:
        return prior.flow().log_prob(torch.tensor(z)).detach().numpy()

    def route(v: Values) -> np.ndarray:
        z = v["mean"] + v["spread"] * noise
        return log_normal(z, v["mean"], v["spread"]) - log_p(z)

    def code(mean: Tensor, spread: Tensor) -> Tensor:
        return prior.rate(q := Code(mean, spread), q.sample(torch.tensor(noise)))

    held(code, route, {"mean": normal(B, D), "spread": positive(B, D)}, exact=1e-5)


def test_every_prior_has_a_row():
    elsewhere = {"StandardNormal", "Categories", "Autoregressive", "LatentDiffusion", "Flow"}
    assert subclasses(Prior) == set(DENSITIES) | elsewhere


def advanced(weight: Weight, steps: int) -> Weight:
    for _ in range(steps):
        weight.advance()
    return weight


def held_rate() -> Weight:
    """After a step whose mean was 6 nats of 4, from a price of 0.01."""
    weight = TargetRate(4.0)
    weight(torch.tensor([5.0, 7.0]))
    weight.advance()
    return weight


WEIGHTS: dict[str, list[tuple[Callable[[], Weight], float]]] = {
    # class -> one, and the factor that it puts on a term whose mean is 1 nat
    "Constant": [(lambda: Constant(4.0), 4.0)],
    "WarmUp": [(lambda: advanced(WarmUp(2.0, 10), 4), 2 * 5 / 10), (lambda: advanced(WarmUp(2.0, 10), 30), 2.0)],
    "Cyclic": [(lambda: advanced(Cyclic(2.0, 10), 12), 2 * 0.4), (lambda: advanced(Cyclic(2.0, 10), 17), 2.0)],
    "Annealed": [(lambda: advanced(Annealed(3.0, 10), 4), 3 - 0.8), (lambda: advanced(Annealed(3.0, 10), 40), 1.0)],
    "FreeBits": [(lambda: FreeBits(0.9, 2.0), 2.0), (lambda: FreeBits(1.1, 2.0), 0.0)],
    "TargetRate": [(lambda: TargetRate(4.0), 0.01), (held_rate, 0.01 * math.exp(0.02 * 0.5 + 0.5))],
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_multiplies_value_and_gradient_alike(name):
    """What a weight follows (a step, a mean, a price) is a number to the gradient."""
    for make, factor in WEIGHTS[name]:
        weight = make().double()
        values = {"term": np.array([0.5, 1.5, 0.7, 1.3, 1.0])}
        held(lambda term, weight=weight: weight(term), lambda v, factor=factor: factor * v["term"], values)


def test_every_weight_has_a_row():
    assert subclasses(Weight) == set(WEIGHTS)


def test_a_straight_line_has_its_gradient():
    """The ruler itself: of z = W x the second route finds x."""
    held(lambda weight: torch.tensor(X) @ weight.T, lambda v: X @ v["weight"].T, {"weight": normal(2, D)})
    assert Point(np.eye(D)).dim == D
