"""The start of a chain: p(x_1 | z), a Gaussian that may depend on the code."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from diffrep.denoising.noise import Noise
from diffrep.nets.blocks import damped
from diffrep.nets.decoders import Generator, MLPGenerator
from diffrep.shapes import CodeVector, Shape


class Start(nn.Module, ABC):
    """p(x_1 | z) = N(mean, std^2), diagonal. `learned`: whether its KL is a term of the loss. `centred`: whether it is
    N(0, start_scale^2 I), whatever the data."""

    learned: bool
    centred: bool = False

    @abstractmethod
    def forward(self, noise: Noise, z: CodeVector | None = None, drop: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x_1, each () or (B or 1, *shape), for codes z (B, d) or None.

        drop (B,) is true where z is dropped.
        """


class StandardStart(Start):
    """N(0, start_scale^2 I) for every code: for a chain whose x_1 holds nothing of the example."""

    learned, centred = False, True

    def forward(self, noise: Noise, z: CodeVector | None = None, drop: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale = noise.start_scale()
        return torch.zeros_like(scale), scale


class MatchedStart(Start):
    """N(alpha_1 m, sigma_1^2 + alpha_1^2 v), m and v the mean and variance of the data, (C, 1, ...) or one for each
    number of x.

    It has the moments of x_1, for a chain whose x_1 still holds something of the example. Of all Gaussians of
    independent numbers that do not depend on x it has the least KL on the training data, on average 1/2 log(1 +
    alpha_1^2 v / sigma_1^2) nats for each number. kept: whether m and v are stored with the weights.
    """

    learned = False
    mean: Tensor
    variance: Tensor

    def __init__(self, mean: Tensor, variance: Tensor, kept: bool = False):
        super().__init__()
        self.register_buffer("mean", mean, persistent=kept)
        self.register_buffer("variance", variance, persistent=kept)

    def forward(self, noise: Noise, z: CodeVector | None = None, drop: Tensor | None = None) -> tuple[Tensor, Tensor]:
        alpha, sigma = noise.scales(torch.ones(1, device=self.mean.device))
        return alpha * self.mean[None], (sigma**2 + alpha**2 * self.variance[None]).sqrt()


class GaussianStart(Start):
    """N(alpha_1 m, sigma_1^2 + alpha_1^2 v): x_1 if x given the code has the distribution N(m, v).

    m and log v have one number for each feature, to which a small network of z adds; without a code it adds nothing.
    Training begins near m = 0, v = 1, which gives N(0, start_scale^2 I). With this start a chain may be shorter, with
    an x_1 that still shows the example (noise.gamma_1 of about 0): the code then replaces the missing steps.
    code_dim: 0 where there is no code. width: of the network.
    """

    learned = True

    def __init__(self, shape: Shape, code_dim: int = 0, width: int = 16):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(shape))
        self.log_variance = nn.Parameter(torch.zeros(shape))
        self.network: MLPGenerator | Generator | None = None
        if code_dim:
            both = (2 * shape[0], *shape[1:])
            network = MLPGenerator(both, code_dim, 8 * width) if len(shape) == 1 else Generator(both, code_dim, width)
            damped(network.out)
            self.network = network

    def forward(self, noise: Noise, z: CodeVector | None = None, drop: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.mean[None], self.log_variance[None]
        if self.network is not None and z is not None:
            more = self.network(z).float()
            if drop is not None:
                more = more.masked_fill(drop.reshape(-1, *[1] * (more.ndim - 1)), 0.0)
            mean, log_variance = (a + b for a, b in zip((mean, log_variance), more.chunk(2, 1), strict=True))
        alpha, sigma = noise.scales(torch.ones(1, device=mean.device))
        return alpha * mean, (sigma**2 + alpha**2 * log_variance.exp()).sqrt()
