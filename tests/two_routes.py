"""A second route to gradients: central differences of a term that is written in numpy's float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import log_ndtr, logsumexp
from torch import Tensor, nn

from diffrep.codes.posteriors import Code, Posterior
from diffrep.nets.encoders import Encoder
from diffrep.shapes import Draws

Values = dict[str, np.ndarray]
B, D = 5, 3
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Each test of a module that imports this draws the same numbers, whichever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state


def central(function: Callable[[Values], np.ndarray], values: Values, name: str, by: np.ndarray) -> np.ndarray:
    """d (by . function) / d values[name], by central differences in float64."""
    found = np.zeros_like(values[name])
    for place in np.ndindex(found.shape):
        moved = []
        for step in (1e-5, -1e-5):
            other = values[name].copy()
            other[place] += step
            moved.append(float((by * function({**values, name: other})).sum()))
        found[place] = (moved[0] - moved[1]) / 2e-5
    return found


def held(code: Callable[..., Tensor], truth: Callable[[Values], np.ndarray], values: Values, exact: float = 1e-6):
    """Value and every gradient of `code` (of tensors by name) are those of `truth` (of arrays by name)."""
    tensors = {name: torch.tensor(v, requires_grad=True) for name, v in values.items()}
    said = code(**tensors)
    np.testing.assert_allclose(said.detach().numpy(), truth(values), rtol=exact, atol=exact)
    by = RNG.normal(size=tuple(said.shape))
    found = torch.autograd.grad((torch.tensor(by) * said).sum(), [*tensors.values()], allow_unused=True)
    for (name, value), gradient in zip(values.items(), found, strict=True):
        want = central(truth, values, name, by)
        got = np.zeros_like(value) if gradient is None else gradient.numpy()
        np.testing.assert_allclose(got, want, rtol=100 * exact, atol=100 * exact * max(1.0, np.abs(want).max()))


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def positive(*shape: int) -> np.ndarray:
    return 0.5 + RNG.random(shape)


def square(x: np.ndarray) -> np.ndarray:
    return (x**2).sum(-1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - logsumexp(x, -1, keepdims=True))


def log_normal(z: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return (-0.5 * ((z - mean) / spread) ** 2 - np.log(spread) - 0.5 * np.log(2 * np.pi)).sum(-1)


def gumbels(noise: np.ndarray) -> np.ndarray:
    return -np.log(-log_ndtr(noise))


class Line(Encoder):
    """x W', in float64."""

    def __init__(self, weight: np.ndarray):
        nn.Module.__init__(self)
        self.weight, self.features, self.shape, self.time = nn.Parameter(torch.tensor(weight)), len(weight), (), False

    def body(self, x, conditions):
        return x.to(self.weight) @ self.weight.T

    def forward(self, x, log_snr=None):
        return x.to(self.weight) @ self.weight.T


class Point(Posterior):
    """z = W x."""

    deterministic, timed = True, False

    def __init__(self, weight: np.ndarray):
        super().__init__()
        self.encoder, self.dim = Line(weight), len(weight)

    def forward(self, x, log_snr=None):
        return Code(self.encoder(x))


class Doubled(Draws):
    """The same random numbers in float64, so that a step is."""

    def normal(self, *shape: int) -> Tensor:
        return super().normal(*shape).double()

    def stratified(self, batch: int) -> Tensor:
        return super().stratified(batch).double()
