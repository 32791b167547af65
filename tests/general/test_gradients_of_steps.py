"""Oracle 5 for whole steps: what each term of a model sends to each of its parameters, by two routes.

The second route is numpy's float64 with the draws of the step. A code that is gated, a view that is a constant, a
fake that the critic judges: there a copy of the number stands that does not move.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor, nn

from diffrep.codes.posteriors import Gaussian
from diffrep.codes.priors import StandardNormal
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import LearnedGamma, LinearGamma
from diffrep.denoising.parameterisations import Eps
from diffrep.denoising.start import GaussianStart
from diffrep.models import contrast, step_terms
from diffrep.models.autoencoder import Autoencoder
from diffrep.models.base import Model
from diffrep.models.bootstrap import Bootstrap
from diffrep.models.classifier import Classifier
from diffrep.models.coding import Coding
from diffrep.models.contrastive import Contrastive
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.nets.decoders import Decoder
from diffrep.shapes import Batch, Draws
from two_routes import B, D, Doubled, Line, Point, Values, central, log_normal, normal, same_numbers, sigmoid, square

__all__ = ["same_numbers"]

X = normal(B, D)
SECOND = normal(B, D)  # another view of the same examples
STEPS = 4


class Plain(Decoder):
    """a x_t + W z, the null code in place of a code that is withheld."""

    def __init__(self, code_dim: int = 2):
        nn.Module.__init__(self)
        self.a, self.w = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(normal(D, 2)))
        self.null = nn.Parameter(torch.tensor(normal(2)))

    def body(self, h, conditions, z):
        return h

    def forward(self, x_t, log_snr, z=None, extra=None, drop=None):
        z = self.null.expand(len(x_t), -1) if z is None else z
        z = z if drop is None else torch.where(drop[:, None], self.null, z)
        return self.a * x_t + z.to(self.w) @ self.w.T


class Critic(nn.Module):
    """x . c."""

    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(torch.tensor(normal(D)))

    def forward(self, x):
        return x @ self.c


def gate(noise, t):
    return 0.5 + t


def model_of(term: str | None = None, noise=None) -> DiffusionModel:
    """With a code, a start and a critic; with a process that is given, the denoiser and its start alone."""
    objective = Objective({} if term is None else {term: of_name(term)}, Levels(likelihood))
    denoiser = Denoiser(Plain(), noise or LinearGamma(-4.0, 3.0, learned=True), Eps())
    coding = None if noise else Coding(Gaussian(Line(np.eye(D)), 2), StandardNormal(2), drop=0.4, gate=gate)
    if term == "contrast_views":
        views = iter((X, SECOND))
        coding = replace(coding, view=lambda x, draws: torch.tensor(next(views)), head=Line(normal(2, 2)))
    critic = None if noise else Critic()
    model = DiffusionModel((D,), None, denoiser, objective, coding, GaussianStart((D,)), critic=critic).double()
    with torch.no_grad():
        model.start.mean.copy_(torch.tensor(X[0])), model.start.log_variance.copy_(torch.tensor(0.3 * X[1]))
    return model


def of_name(term: str):
    return step_terms.in_steps(STEPS) if term == "in_steps" else getattr(step_terms, term)


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Those of the table below, by short names."""
    names = {
        "a": "denoiser.network.a",
        "w": "denoiser.network.w",
        "null": "denoiser.network.null",
        "ends": "denoiser.noise.ends",
        "heads": "posterior.heads.weight",
        "bias": "posterior.heads.bias",
        "mean": "start.mean",
        "log_variance": "start.log_variance",
        "c": "critic.c",
        "head": "head.weight",
    }
    return {short: model.get_parameter(name) for short, name in names.items() if name in dict(model.named_parameters())}


class Route:
    """The step of `model_of` in numpy; `before` holds the parameters that a stopped number is made of."""

    def __init__(self, v: Values, before: Values):
        draws = Draws.of(0)
        self.t, self.eps = draws.stratified(B).double().numpy(), draws.normal(B, D).double().numpy()
        self.code_noise, dropped = draws.normal(B, 2).double().numpy(), draws.uniform(B).numpy() < 0.4
        self.more = draws  # what a term draws itself comes next
        self.v, gamma = v, self.gamma(self.t, v["ends"])
        self.alpha, self.sigma = self.scales(gamma)
        self.weight = np.full(B, v["ends"][1] - v["ends"][0])
        self.x_t = self.alpha[:, None] * X + self.sigma[:, None] * self.eps
        self.code, self.spread, self.z = self.coded(v)
        still = self.coded(before)[2]
        shown = still + (0.5 + self.t)[:, None] * (self.z - still)
        self.eps_hat = self.said(self.x_t, np.where(dropped[:, None], v["null"], shown))
        self.x_hat = (self.x_t - self.sigma[:, None] * self.eps_hat) / self.alpha[:, None]

    def gamma(self, t: np.ndarray, ends: np.ndarray) -> np.ndarray:
        return ends[0] + (ends[1] - ends[0]) * t

    def scales(self, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.sqrt(sigmoid(-gamma)), np.sqrt(sigmoid(gamma))

    def coded(self, v: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean, raw = np.split(X @ v["heads"].T + v["bias"], 2, 1)
        spread = np.log1p(np.exp(raw - 0.5)) + 1e-3
        return mean, spread, mean + spread * self.code_noise

    def said(self, x_t: np.ndarray, z: np.ndarray) -> np.ndarray:
        return self.v["a"] * x_t + z @ self.v["w"].T + x_t

    def drawn(self, *shape: int) -> np.ndarray:
        return self.more.normal(*shape).double().numpy()


def in_steps(r: Route, before: Route) -> np.ndarray:
    gap = r.gamma(r.t, r.v["ends"]) - r.gamma(r.t - 1 / STEPS, r.v["ends"])
    return 0.5 * STEPS * np.expm1(gap) * square(r.eps - r.eps_hat)


def prior(r: Route, before: Route) -> np.ndarray:
    alpha, sigma = r.scales(r.v["ends"][1])
    variance = sigma**2 + alpha**2 * np.exp(r.v["log_variance"])
    gap = alpha * X - alpha * r.v["mean"]
    return 0.5 * (sigma**2 / variance + gap**2 / variance - 1 - np.log(sigma**2 / variance)).sum(1)


def slice_score(r: Route, before: Route) -> np.ndarray:
    v = r.drawn(B, D)
    eps_hat = r.said(before.x_t, r.z)  # x_t is where the score is asked: a constant
    return r.weight * (0.5 * square(eps_hat) - r.sigma * (r.v["a"] + 1) * square(v))


def reconstruct(r: Route, before: Route) -> np.ndarray:
    alpha, sigma = r.scales(r.v["ends"][0])
    return -log_normal(X, X + sigma / alpha * r.drawn(B, D), sigma / alpha)


def mmd(r: Route, before: Route) -> np.ndarray:
    p, kernel = r.drawn(B, 2), lambda a, b: 4 / (4 + ((a[:, None] - b) ** 2).sum(-1))
    own = ((1 - np.eye(B)) * (kernel(r.z, r.z) + kernel(p, p))).sum(1)
    return own / (B - 1) - 2 * kernel(r.z, p).mean(1)


def contrast_views(r: Route, before: Route) -> np.ndarray:
    first, second = (np.split(x @ r.v["heads"].T + r.v["bias"], 2, 1)[0] for x in (X, SECOND))
    return partners(np.concatenate([first, second]) @ r.v["head"].T, 0.5)


def partners(u: np.ndarray, temperature: float) -> np.ndarray:
    """Cross entropy (B,) of partners among the other views, of projections (2 B, d)."""
    u = u / np.linalg.norm(u, axis=1, keepdims=True)
    scores = u @ u.T / temperature + np.diag(np.full(2 * B, -np.inf))
    partner = scores[np.arange(2 * B), np.roll(np.arange(2 * B), B)]
    return (logsumexp(scores, 1) - partner).reshape(2, B).mean(0)


ROUTES: dict[str, Callable[[Route, Route], np.ndarray]] = {
    "denoise": lambda r, before: 0.5 * r.weight * square(r.eps - r.eps_hat),
    "prior": prior,
    "rate": lambda r, before: 0.5 * (r.code**2 + r.spread**2 - 1 - 2 * np.log(r.spread)).sum(1),
    "l1": lambda r, before: np.abs(r.code).sum(1),
    "mmd": mmd,
    "contrast_views": contrast_views,
    "slice_score": slice_score,
    "fool": lambda r, before: 0.5 * (r.x_hat @ r.v["c"] - 1) ** 2,
    "reconstruct": reconstruct,
    "in_steps": in_steps,
}


def agree(model: nn.Module, loss: Tensor, route: Callable[[Values], np.ndarray], moved: dict[str, nn.Parameter]):
    """The loss (B,) and its gradient in every parameter of `moved` are those of the route."""
    values, by = {name: p.detach().numpy().copy() for name, p in moved.items()}, normal(B)
    np.testing.assert_allclose(loss.detach(), route(values), rtol=1e-5, atol=1e-6)
    (torch.tensor(by) * loss).sum().backward()
    for name, parameter in moved.items():
        want = central(route, values, name, by)
        got = np.zeros_like(want) if parameter.grad is None else parameter.grad.numpy()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(want).max()), err_msg=name)


def batch(seed: int = 0, label: Tensor | None = None) -> Batch:
    return Batch(torch.tensor(X), torch.arange(B), label, Doubled.of(seed))


@pytest.mark.parametrize("term", ROUTES)
def test_a_term_of_a_step(term):
    """Decoder, encoder, both ends of the noise, the start and the critic: each gets what the term owes it."""
    model = model_of(term)
    moved = parameters(model)
    before = {name: p.detach().numpy().copy() for name, p in moved.items()}
    route = lambda v: ROUTES[term](Route(v, before), Route(before, before))  # noqa: E731
    agree(model, model.loss(batch())[term], route, moved)


def test_every_term_of_a_step_has_a_row():
    own = {n for n, f in inspect.getmembers(step_terms, inspect.isfunction) if f.__module__ == step_terms.__name__}
    assert own == set(ROUTES)


def test_a_critic_judges_what_it_cannot_move():
    """Its loss moves it alone: the fake is a constant; and the denoiser's player does not own the critic."""
    model = model_of("denoise")
    moved = parameters(model)
    before = {name: p.detach().numpy().copy() for name, p in moved.items()}
    still = Route(before, before).x_hat

    def route(v: Values) -> np.ndarray:
        return 0.5 * (X @ v["c"] - 1) ** 2 + 0.5 * (still @ v["c"]) ** 2

    agree(model, model.loss(batch(), "critic")["judge"], route, moved)
    owned = {id(p) for group in model.players()["model"].values() for p in group}
    assert id(model.critic.c) not in owned and id(model.denoiser.network.a) in owned


def test_the_inside_of_a_learned_process_follows_the_variance():
    """Its gradient is that of loss^2 / D, each example's own; the decoder's is that of the loss (VDM, Appendix I.2)."""
    torch.manual_seed(0)
    model = model_of("denoise", LearnedGamma(-4.0, 3.0, 3))
    inside = {name: model.noise.get_parameter(name) for name in ("l1", "l2_weight", "l2_bias", "l3")}
    decoder = {name: model.denoiser.network.get_parameter(name) for name in ("a", "w", "null")}
    draws = Draws.of(0)
    t, eps = draws.stratified(B).double().numpy(), draws.normal(B, D).double().numpy()

    def route(v: Values) -> np.ndarray:
        def monotone(t):
            inner = np.abs(v["l2_weight"]) * (2 * t[:, None] - 1) + v["l2_bias"]
            return np.abs(v["l1"]) * t + ((2 * sigmoid(inner) - 1) * np.abs(v["l3"])).sum(1) / 3

        low, high = monotone(np.zeros(1)), monotone(np.ones(1))
        gamma = lambda t: -4 + 7 * (monotone(t) - low) / (high - low)  # noqa: E731
        alpha, sigma = np.sqrt(sigmoid(-gamma(t)))[:, None], np.sqrt(sigmoid(gamma(t)))[:, None]
        eps_hat = (v["a"] + 1) * (alpha * X + sigma * eps) + v["null"] @ v["w"].T
        return 0.5 * (gamma(t + 1e-6) - gamma(t - 1e-6)) / 2e-6 * square(eps - eps_hat)

    values = {name: p.detach().numpy().copy() for name, p in {**inside, **decoder}.items()}
    loss, by = model.loss(batch())["denoise"], normal(B)
    np.testing.assert_allclose(loss.detach(), route(values), rtol=1e-5)
    (torch.tensor(by) * loss).sum().backward()
    for name, parameter in {**inside, **decoder}.items():
        wanted = (lambda v: route(v) ** 2 / D) if name in inside else route
        want = central(wanted, values, name, by)
        np.testing.assert_allclose(parameter.grad, want, rtol=1e-3, atol=1e-3 * np.abs(want).max(), err_msg=name)


def test_byol_moves_what_predicts_and_not_its_target():
    """2 - 2 cos in both orders of the views: the slow copies are constants, and the online network is moved by both."""
    slow, slow_head = normal(2, D), normal(2, 2)
    views = [normal(B, D), normal(B, D)]
    given = iter(views)
    networks = Point(normal(2, D)), Line(normal(2, 2)), Line(normal(2, 2))
    model = Bootstrap((D,), None, *networks, lambda x, draws: torch.tensor(next(given)), 0.9)
    with torch.no_grad():
        model.slow_posterior.copy.encoder.weight.copy_(torch.tensor(slow))
        model.slow_head.copy.weight.copy_(torch.tensor(slow_head))

    def route(v: Values) -> np.ndarray:
        total = np.zeros(B)
        for seen, other in (views, views[::-1]):
            q, target = seen @ v["code"].T @ v["head"].T @ v["said"].T, other @ slow.T @ slow_head.T
            total += 2 - 2 * (q * target).sum(1) / np.linalg.norm(q, axis=1) / np.linalg.norm(target, axis=1)
        return total

    moved = {"code": model.posterior.encoder.weight, "head": model.head.weight, "said": model.predictor.weight}
    agree(model, model.loss(batch())["bootstrap"].double(), route, moved)
    assert model.slow_head.copy.weight.grad is None and model.slow_posterior.copy.encoder.weight.grad is None


def test_a_contrast_moves_both_of_its_views():
    """Cross entropy of partners among the other views of the batch, in the encoder and in the head."""
    views = [normal(B, D), normal(B, D)]
    given = iter(views)
    compare = lambda a, b: contrast.nt_xent(a, b, 0.7)  # noqa: E731
    parts = Point(normal(2, D)), Line(normal(2, 2)), lambda x, draws: torch.tensor(next(given)), compare
    model = Contrastive((D,), None, *parts)

    def route(v: Values) -> np.ndarray:
        return partners(np.concatenate(views) @ v["code"].T @ v["head"].T, 0.7)

    moved = {"code": model.posterior.encoder.weight, "head": model.head.weight}
    agree(model, model.loss(batch())["contrast"].double(), route, moved)


def test_a_classifier_learns_from_the_labels_that_there_are():
    """Cross entropy; an example whose label is unknown moves nothing."""
    label = np.array([0, 2, -1, 1, 2])
    model = Classifier((D,), None, Point(normal(2, D)), 3).double()

    def route(v: Values) -> np.ndarray:
        s = X @ v["code"].T @ v["scores"].T + v["bias"]
        return np.where(label < 0, 0.0, logsumexp(s, 1) - s[np.arange(B), label])

    moved = {"code": model.posterior.encoder.weight, "scores": model.scores.weight, "bias": model.scores.bias}
    agree(model, model.loss(batch(label=torch.tensor(label)))["label"], route, moved)


@pytest.mark.parametrize("term", ["reconstruction", "rate"])
def test_an_autoencoder(term):
    """Generator, spread and encoder, through the draw of the code; the encoder sees what is not hidden, and the loss
    counts what is."""
    hidden = np.random.default_rng(0).random((B, D)) < 0.5
    parts = Gaussian(Line(np.eye(D)), 2), Line(normal(D, 2)), StandardNormal(2)
    model = Autoencoder((D,), None, *parts, hide=lambda x, draws: torch.tensor(hidden)).double()
    noise = Draws.of(0).normal(B, 2).double().numpy()

    def route(v: Values) -> np.ndarray:
        mean, raw = np.split(np.where(hidden, 0.0, X) @ v["heads"].T + v["bias"], 2, 1)
        spread = np.log1p(np.exp(raw - 0.5)) + 1e-3
        if term == "rate":
            return 0.5 * (mean**2 + spread**2 - 1 - 2 * np.log(spread)).sum(1)
        gap = (X - (mean + spread * noise) @ v["generator"].T) / np.exp(v["log_spread"])
        return (hidden * (0.5 * gap**2 + v["log_spread"] + 0.5 * np.log(2 * np.pi))).sum(1)

    heads = model.posterior.heads
    moved = {"heads": heads.weight, "bias": heads.bias, "generator": model.generator.weight}
    agree(model, model.loss(batch())[term], route, {**moved, "log_spread": model.log_spread})


def test_every_model_has_a_row():
    """A model that is added needs its second route here."""
    here = {Autoencoder, Bootstrap, Classifier, Contrastive, DiffusionModel}
    own = {found for kind in Model.__subclasses__() for found in (kind, *kind.__subclasses__())}
    own = {found for found in own if found.__module__.startswith("diffrep.") and not inspect.isabstract(found)}
    assert {kind.__name__ for kind in own} - {"Untrained"} == {kind.__name__ for kind in here}
