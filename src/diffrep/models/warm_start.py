"""Simple distributions of clean data, fitted to training examples: sampling can start from them at t < 1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffrep.data import Examples
from diffrep.denoising.samplers import USUAL, Sampling, sample
from diffrep.errors import UserError, unknown
from diffrep.models.base import Model
from diffrep.models.generative import in_batches
from diffrep.shapes import Data, Draws

MOST = 10_000  # training examples that a guess is fitted to


class Guess(ABC):
    """A simple distribution of clean data: at a high noise level its noised form is close to that of the data."""

    @abstractmethod
    def draw(self, n: int, draws: Draws) -> Data:
        """x (n, *shape)."""


@dataclass(frozen=True)
class Nothing(Guess):
    """x = 0, so that x_t is N(0, sigma_t^2), as from t = 1 (DRL's Gaussian start). example: any of the data."""

    example: Tensor

    def draw(self, n: int, draws: Draws) -> Data:
        return torch.zeros_like(self.example).expand(n, *self.example.shape)


@dataclass(frozen=True)
class Uniform(Guess):
    """Each number on its own, uniform between two ends of shape (*shape); DRL's Uniform + Gaussian start."""

    low: Tensor
    high: Tensor

    @classmethod
    def fit(cls, x: Data) -> Uniform:
        """Between the smallest and the largest value that each number takes."""
        return cls(x.amin(0), x.amax(0))

    def draw(self, n: int, draws: Draws) -> Data:
        return torch.lerp(self.low, self.high, draws.uniform(n, *self.low.shape).to(self.low))


@dataclass(frozen=True)
class Gaussian(Guess):
    """N(mean, F' F): mean (*shape) and F (N, *shape), whose rows are deviations over sqrt(N - 1).

    A standard normal combination of the rows has exactly the covariance of the examples, so the matrix is never formed.
    """

    mean: Tensor
    rows: Tensor

    @classmethod
    def fit(cls, x: Data) -> Gaussian:
        """The mean and the unbiased covariance of the examples, all correlations included."""
        mean = x.mean(0)
        return cls(mean, (x - mean) / max(1, len(x) - 1) ** 0.5)

    def draw(self, n: int, draws: Draws) -> Data:
        return self.mean + torch.tensordot(draws.normal(n, len(self.rows)).to(self.rows), self.rows, dims=1)


GUESSES: dict[str, Callable[[Data], Guess]] = {
    "noise": lambda x: Nothing(x[0]),
    "uniform": Uniform.fit,
    "gaussian": Gaussian.fit,
}


def fitted(name: str, examples: Examples, device: torch.device | str = "cpu") -> Guess:
    """The guess of that name for a split, from at most 10,000 evenly chosen examples; UserError where there is none."""
    if name not in GUESSES:
        raise unknown("start", name, GUESSES)
    return GUESSES[name](examples.batch(examples.evenly(MOST)).x.to(device))


@torch.no_grad()
def sample_from(guess: Guess, model: Model, t: float, n: int, seed: int = 0, sampling: Sampling = USUAL) -> Data:
    """n examples (n, *shape): the guess noised to t, then the model's steps from t to 0 (DRL, Section 6).

    Code and covariate are those of `Model.sample`, and example i depends on seed and i alone.
    UserError: a model that removes no noise, t outside of (0, 1].
    """
    decoder = model.diffusion
    if decoder is None:
        raise UserError(
            "this model decodes without noise, so it has no noise level to start from; sample without --t-init."
        )
    if model.timed and not decoder.drop:
        raise UserError(
            "a time-conditioned code has no prior, and with code.drop=0 its decoder cannot work without one; train"
            " with code.drop above 0."
        )
    walk, beside = sampling.times(decoder.noise, start=t), model.covariates(n, seed)

    def make(rows: slice, draws: Draws) -> Data:
        count = rows.stop - rows.start
        z = None if model.prior is None or model.timed else model.prior.sample(count, draws)
        given = decoder.given(None if beside is None else beside[rows])
        x = guess.draw(count, draws)
        x_t = given.noise.add(x, draws.normal(*x.shape).to(x), walk[:1].expand(count))
        x = sample(given.conditioned(z, count), given.noise, x_t, sampling.step, walk, draws)
        return x.clamp(-1, 1) if model.bins is not None else x

    return in_batches(n, seed, walk.device, make)
