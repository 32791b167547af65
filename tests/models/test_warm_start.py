"""Beginning below t = 1: what a guess is like, and that the flow from it gives the data where the guess is right."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffrep import runs
from diffrep.denoising.noise import VE, VP
from diffrep.denoising.samplers import Sampling
from diffrep.errors import UserError
from diffrep.models.warm_start import GUESSES, Gaussian, Nothing, Uniform, fitted, sample_from
from diffrep.shapes import Draws
from oracles import Gaussian as Truth
from oracles import examples_of
from runs_at_hand import diffrep, one_sentence, run_of


class Model:
    """What `sample_from` needs of a model: the ideal denoiser of Gaussian data."""

    prior, timed, bins = None, False, None

    def __init__(self, truth, noise):
        self.diffusion = SimpleNamespace(noise=noise, conditioned=lambda z, n: truth.denoiser(noise))
        self.diffusion.given, self.covariates = lambda covariate: self.diffusion, lambda n, seed: None


@pytest.fixture
def truth():
    return Truth.of(1, 2, 3)


def covariance_error(x, truth):
    """The largest deviation of the sample's mean and covariance from the truth, in standard errors."""
    flat, diagonal = x.flatten(1), truth.covariance.diagonal()
    mean = (flat.mean(0) - truth.mean).abs() / (diagonal / len(x)).sqrt()
    spread = ((torch.outer(diagonal, diagonal) + truth.covariance**2) / len(x)).sqrt()
    return max(float(mean.max()), float(((flat.T.cov() - truth.covariance).abs() / spread).max()))


def test_the_gaussian_guess_is_the_sample_covariance(truth):
    """By two routes: rows' products are the unbiased covariance, and so are the moments of many draws."""
    x = truth.draw(50)
    guess = Gaussian.fit(x)
    rows = guess.rows.flatten(1)
    torch.testing.assert_close(rows.T @ rows, torch.from_numpy(np.cov(x.flatten(1).numpy().T)))
    fit = Truth(guess.mean.flatten(), rows.T @ rows, truth.shape)
    assert covariance_error(guess.draw(20_000, Draws.of(0)), fit) < 4.5


@pytest.mark.parametrize("t", [0.4, 0.8])
@pytest.mark.parametrize("noise", [VE(0.01, 50.0), VP()])
def test_the_flow_from_a_gaussian_guess_gives_gaussian_data(truth, noise, t):
    """The guess is the law of the data, so its noised form is p_t and the flow from it ends in p_0, from any t."""
    noise = noise.double()
    values, basis = truth.spectrum
    rows = (values.sqrt()[:, None] * basis.T).view(-1, *truth.shape)  # exact, so that only the walk can err
    guess = Gaussian(truth.mean.view(truth.shape), rows)
    x = sample_from(guess, Model(truth, noise), t, 5000, 1, Sampling("heun", 60))
    assert covariance_error(x, truth) < 5


def test_the_uniform_guess_has_its_closed_form(truth):
    """alpha u + sigma eps, u uniform on [a, b]: mean alpha (a + b) / 2, variance alpha^2 (b - a)^2 / 12 + sigma^2."""
    x = truth.draw(30)
    guess = Uniform.fit(x)
    low, high = x.amin(0).flatten(), x.amax(0).flatten()
    drawn = guess.draw(40_000, Draws.of(0)).flatten(1)
    assert (drawn >= low).all() and (drawn <= high).all()
    noise, t = VP().double(), torch.full((40_000,), 0.3).double()
    x_t = noise.add(guess.draw(40_000, Draws.of(2)), Draws.of(3).normal(40_000, 1, 2, 3).double(), t).flatten(1)
    alpha, sigma = (float(scale[0]) for scale in noise.scales(t))
    variance = alpha**2 * (high - low) ** 2 / 12 + sigma**2
    torch.testing.assert_close(x_t.var(0), variance, rtol=0.04, atol=0)
    middle = alpha * (low + high) / 2
    assert ((x_t.mean(0) - middle).abs() / (variance / len(x_t)).sqrt()).max() < 4.5


def test_without_a_guess_only_high_noise_will_do(truth):
    """N(0, sigma_t^2) is p_t where noise drowns the data, and is not below: the mean goes missing there."""
    noise = VE(0.01, 50.0).double()
    guess = Nothing(truth.mean.view(truth.shape))
    near, far = (
        sample_from(guess, Model(truth, noise), t, 1000, 1, Sampling("heun", 60)).flatten(1).mean(0) for t in (1.0, 0.4)
    )
    gap = truth.mean.norm()
    assert (near - truth.mean).norm() < 0.1 * gap < 0.3 * gap < (far - truth.mean).norm()


def test_guesses_of_a_split():
    """Each is fitted to at most 10,000 evenly spread examples, as its own fit does; other names are told."""
    x = np.random.default_rng(0).uniform(-1, 1, (40, 1, 2, 2)).astype(np.float32)
    examples = examples_of(x)
    torch.testing.assert_close(fitted("uniform", examples).high, torch.from_numpy(x).amax(0))
    torch.testing.assert_close(fitted("gaussian", examples).mean, torch.from_numpy(x).mean(0))
    assert fitted("noise", examples).draw(3, Draws.of(0)).abs().max() == 0
    with pytest.raises(UserError, match="start 'gauss'"):
        fitted("gauss", examples)


@pytest.mark.parametrize("name", GUESSES)
def test_a_run_samples_from_partway(name):
    """A trained model with a code begins at t < 1 and ends in examples of its shape in [-1, 1]; the seed decides."""
    run = runs.load(run_of("drl"))
    guess = fitted(name, run.splits().train)
    x, again = (sample_from(guess, run.model, 0.6, 3, 0, Sampling("cas", 4)) for _ in range(2))
    assert x.shape == (3, *run.model.shape) and float(x.abs().max()) <= 1 and torch.equal(x, again)


def test_a_model_without_noise_says_so():
    """An autoencoder has no noise level to begin at."""
    run = runs.load(run_of("ae"))
    with pytest.raises(UserError, match="no noise"):
        sample_from(fitted("noise", run.splits().train), run.model, 0.6, 3)


def test_the_command_begins_partway(tmp_path, capsys):
    """--t-init fits its start to the run's own data; what does not go together is told in one sentence."""
    out = tmp_path / "x.png"
    words = ("sample", run_of("drl"), "-o", out, "-n", 2, "--steps", 2, "--sampler", "cas")
    for start in ((), ("--start", "uniform")):
        assert diffrep(*words, "--t-init", 0.6, *start) == 0 and out.exists()
        out.unlink()
    capsys.readouterr()
    for wrong, said in (
        (("--start", "uniform"), "--t-init"),
        (("--t-init", 0.6, "--start", "gaus"), "gaussian"),
        (("--t-init", 1.6), "(0, 1]"),
    ):
        assert diffrep(*words, *wrong) == 2
        assert said in one_sentence(capsys)
