"""Embeddings: the noise level as a vector, the data as sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffrep.shapes import Data, FeatureMap, Time


class NoiseLevel(nn.Module):
    """(B,) log-SNR -> (B, width): sines and cosines of `waves` frequencies, then a two-layer perceptron.

    Frequencies rise geometrically from half a turn over the range [-20, 20] (so all noise levels differ) to a turn in
    two units of log-SNR (finer changes make no difference to a network).
    """

    def __init__(self, width: int, waves: int = 16):
        super().__init__()
        self.register_buffer("frequency", torch.logspace(math.log10(1 / 40), 0, waves) * math.pi, persistent=False)
        self.frequency: Tensor
        self.perceptron = nn.Sequential(nn.Linear(2 * waves, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, log_snr: Time) -> Tensor:
        angle = log_snr.float()[:, None] * self.frequency
        return self.perceptron(torch.cat([angle.sin(), angle.cos()], dim=1))


class Fourier(nn.Module):
    """Appends sin(2^n pi x) and cos(2^n pi x) for each exponent n to the channels of x (VDM, Appendix C; n = 7, 8).

    (B, C, ...) -> (B, C (1 + 2 len(exponents)), ...). Without exponents it returns x.
    """

    def __init__(self, exponents: tuple[int, ...] = ()):
        super().__init__()
        self.exponents = exponents

    def channels(self, channels: int) -> int:
        """The number of output channels for `channels` input channels."""
        return channels * (1 + 2 * len(self.exponents))

    def forward(self, x: Data) -> FeatureMap:
        angles = [2.0**n * math.pi * x for n in self.exponents]
        return torch.cat([x, *(a.sin() for a in angles), *(a.cos() for a in angles)], dim=1) if angles else x
