"""A code as one more observation of x: for each number a value and a precision, fused with x_t by Bayes' rule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffrep.nets.decoders import Generator, MLPGenerator
from diffrep.shapes import CodeVector, Data, Shape, Time, expand

Heard = tuple[Data, Data]  # mu and rho, like x: what a code says each number is, and how precisely


class Observation(nn.Module):
    """z (B, code_dim) -> mu and rho >= 0, (B, *shape) each: N(x; mu, 1 / rho), number by number, is what z says of x.

    Where the code is withheld rho is 0, exactly. log rho lies in [-10, 4] and begins near -2: as precise as x_t is at
    a log-SNR of -2. width: of the generator that draws both; units of a layer for vectors are 8 times it. until: the
    log-SNR from which on, towards the data, the code is withheld; over the unit below it rho falls to 0.
    """

    def __init__(self, shape: Shape, code_dim: int, width: int, until: float | None = None):
        super().__init__()
        self.until = until
        both = (2 * shape[0], *shape[1:])
        self.network: nn.Module = (
            MLPGenerator(both, code_dim, 8 * width) if len(shape) == 1 else Generator(both, code_dim, width)
        )

    def forward(self, z: CodeVector, log_snr: Time, drop: Tensor | None = None) -> Heard:
        """log_snr (B,) of the x_t that it is fused with; drop (B,), bool: where the code is withheld."""
        mu, v = self.network(z).float().chunk(2, 1)
        rho = torch.exp(-(v.clamp(-6, 8) + 2))
        if self.until is not None:
            rho = rho * expand((self.until - log_snr).clamp(0, 1), rho)
        return mu, rho if drop is None else rho.masked_fill(expand(drop, rho), 0.0)


def fuse(y: Data, s: Tensor, heard: Heard) -> tuple[Data, Data]:
    """y = x + s eps, of precision SNR = 1 / s^2, and a second observation mu of precision rho, as one: (y', s').

    y' = (SNR y + rho mu) / (SNR + rho), s' = (SNR + rho)^(-1/2), written such that rho = 0 gives y and s bit for bit.
    """
    mu, rho = heard
    ratio = rho * s**2  # rho / SNR
    return y + ratio / (1 + ratio) * (mu - y), s / (1 + ratio).sqrt()
