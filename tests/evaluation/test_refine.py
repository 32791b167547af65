"""Refined codes against the exact posterior of linear-Gaussian data, and what cannot be refined."""

import math

import pytest
import torch

from diffrep.codes.posteriors import Categorical, Code, Deterministic, Gaussian, Posterior
from diffrep.codes.priors import Categories, StandardNormal
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import LinearGamma
from diffrep.denoising.parameterisations import X
from diffrep.errors import UserError
from diffrep.evaluation.bound import bound
from diffrep.evaluation.refine import refine, refined
from diffrep.models.autoencoder import Autoencoder
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.loss_weights import Constant
from diffrep.models.step_terms import denoise, rate
from diffrep.nets.encoders import MLPEncoder
from diffrep.shapes import Batch, Draws
from oracles import ExactConditional, ExactPosterior, LinearGaussian, examples_of

pytestmark = pytest.mark.slow

TRUTH = LinearGaussian.of(6, 3)


class Off(Posterior):
    """The exact posterior moved by `shift` of its spreads, and `stretch` times as wide."""

    def __init__(self, shift: float, stretch: float):
        super().__init__()
        self.exact, self.shift, self.stretch = ExactPosterior(TRUTH), shift, stretch
        self.encoder, self.dim, self.timed, self.deterministic = self.exact.encoder, 3, False, False
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, log_snr=None) -> Code:
        code = self.exact(x)
        return Code(code.mean + self.shift * code.spread, self.stretch * code.spread)


def vae_vdm(posterior: Posterior, prior=None) -> DiffusionModel:
    denoiser = Denoiser(ExactConditional(TRUTH), LinearGamma(-9.0, 5.0), X())
    terms, prior = {"diffusion": denoise, "rate": rate}, prior or StandardNormal(3)
    weights = {"rate": Constant(1.0)}
    return DiffusionModel((6,), None, denoiser, Objective(terms, Levels(likelihood), weights), Coding(posterior, prior))


def batch(n: int, seed: int = 0) -> Batch:
    return Batch(TRUTH.data.draw(n).float(), torch.arange(n), draws=Draws.of(seed))


@pytest.mark.long
def test_the_exact_posterior_is_found_from_a_wrong_one():
    """With the exact decoder and prior the bound is closest at q(z | x) = p(z | x), which is known; spreads too."""
    data = batch(100)
    found = refine(vae_vdm(Off(0.8, 1.6)).eval(), data, steps=100, levels=8)
    exact = ExactPosterior(TRUTH)(data.x)
    off = (found.mean - exact.mean) / exact.spread
    assert float(off.square().mean().sqrt()) < 0.2  # it began at 0.8
    assert float((found.spread / exact.spread).log().abs().mean()) < 0.1  # it began at log 1.6 = 0.47


@pytest.mark.long
def test_the_gap_is_the_divergence_from_the_exact_posterior():
    """What refining gains is KL(q || p(z | x)), in closed form for two Gaussians, and no more than that."""
    shift, stretch = 0.8, 1.6
    said = refined(vae_vdm(Off(shift, stretch)), examples_of(TRUTH.data.draw(300).numpy()), steps=80, levels=8)
    exact = 3 * 0.5 * (stretch**2 + shift**2 - 1 - math.log(stretch**2))
    gap, error = said.gap()
    assert exact - 0.1 - 3 * error < gap < exact + 3 * error  # 0.1: the steps are noisy
    assert error < 0.15 * exact


def test_nothing_is_gained_from_the_exact_posterior():
    """Steps that start at the best code there is come back to it but for their noise, and cannot gain."""
    gap, error = refined(vae_vdm(Off(0, 1)), examples_of(TRUTH.data.draw(120).numpy()), steps=30).gap()
    assert -0.15 - 3 * error < gap < 3 * error


def test_the_encoders_own_bound_is_that_of_evaluate():
    """Two protocols of one number, with noise of their own: they agree within their error; no steps, no change."""
    model, examples = vae_vdm(Off(0.5, 1)), examples_of(TRUTH.data.draw(500).numpy())
    said = refined(model, examples, steps=0, levels=16, batch=100)
    apart = said.encoded.total - bound(model, examples, levels=16, batch=100).total
    error = float(apart.std()) / len(apart) ** 0.5
    assert abs(float(apart.mean())) < 4 * error < 1
    assert torch.allclose(said.refined.total, said.encoded.total, atol=1e-4)


def test_codes_are_measured_with_noise_that_did_not_make_them(monkeypatch):
    """A code that was fitted to the noise of its own measurement would look better than it is."""
    seen: dict[bool, set[int]] = {True: set(), False: set()}
    model, steps = vae_vdm(Off(0.5, 1)), []
    plain, practising = model.bound, refine

    def watched(batch, *words, **more):
        seen[bool(steps)].add(batch.random.generator.initial_seed())
        return plain(batch, *words, **more)

    def practise(*words, **more):
        steps.append(True)
        found = practising(*words, **more)
        steps.clear()
        return found

    monkeypatch.setattr(model, "bound", watched)
    monkeypatch.setattr("diffrep.evaluation.refine.refine", practise)
    refined(model, examples_of(TRUTH.data.draw(90).numpy()), steps=2, levels=2, batch=40)
    assert len(seen[True]) == len(seen[False]) == 3 and not seen[True] & seen[False]


def test_an_example_is_refined_for_itself():
    """A code does not depend on which other examples are refined beside it, but for the noise that it meets."""
    model, data = vae_vdm(Off(0.8, 1)).eval(), batch(50)
    alone = Batch(data.x[:25], data.index[:25], draws=Draws.of(3))
    together = refine(model, Batch(data.x, data.index, draws=Draws.of(4)), steps=15, levels=8).mean[:25]
    difference = refine(model, alone, steps=15, levels=8).mean - together
    assert float(difference.abs().mean()) < 0.25 * float(TRUTH.posterior[1].mean())


def test_refining_leaves_the_model_as_it_was():
    """No weight moves, none keeps a gradient, and the model trains on if it did."""
    model = vae_vdm(Gaussian(MLPEncoder((6,), 16, 1), 3)).train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    refined(model, examples_of(TRUTH.data.draw(20).numpy()), steps=3, levels=2)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())
    assert model.training


def test_a_vae_is_refined_too():
    """Its bound is a function of the code as well: from an untrained encoder a better code is found."""
    generator = torch.nn.Linear(3, 6)
    vae = Autoencoder((6,), None, Gaussian(MLPEncoder((6,), 16, 1), 3), generator, StandardNormal(3))
    gap, error = refined(vae, examples_of(TRUTH.data.draw(100).numpy()), steps=50).gap()
    assert gap > 5 * error > 0


@pytest.mark.parametrize(
    "posterior, prior",
    [
        (lambda encoder: Categorical(encoder, 4, classes=2), Categories(2, 2)),
        (lambda encoder: Deterministic(encoder, 3), StandardNormal(3)),
    ],
    ids=["categorical", "point"],
)
def test_other_codes_are_refused(posterior, prior):
    """One-hot numbers cannot be moved a little, and a point has no bound."""
    model = vae_vdm(posterior(MLPEncoder((6,), 16, 1)), prior)
    with pytest.raises(UserError, match="Gaussian code"):
        refined(model, examples_of(TRUTH.data.draw(10).numpy()), steps=2)
