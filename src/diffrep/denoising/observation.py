"""An estimate of x from the code: for each number a value and a precision, combined with x_t by Bayes' rule."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffrep.nets.decoders import Generator, MLPGenerator
from diffrep.shapes import CodeVector, Data, Shape, Time, expand

Observed = tuple[Data, Data]  # mu and rho, like x: the estimate of each number from the code, and its precision


class Observation(nn.Module):
    """z (B, code_dim) -> mu and rho >= 0, (B, *shape) each: N(x; mu, 1 / rho), number by number, estimates x from z.

    rho is exactly 0 where the code is dropped. log rho lies in [-10, 4] and begins near -2, the precision of x_t at a
    log-SNR of -2. width: of the generator that outputs both; a layer for vectors has 8 times as many units. until: rho
    is 0 above this log-SNR and rises to its value over the unit of log-SNR below it. patch: see `Generator`.
    covariates: values of a covariate that is given beside z, 0 for none.
    """

    def __init__(
        self,
        shape: Shape,
        code_dim: int,
        width: int,
        until: float | None = None,
        patch: int = 1,
        covariates: int = 0,
    ):
        super().__init__()
        self.until = until
        both, code_dim = (2 * shape[0], *shape[1:]), code_dim + covariates
        self.network: nn.Module = (
            MLPGenerator(both, code_dim, 8 * width) if len(shape) == 1 else Generator(both, code_dim, width, patch)
        )

    def forward(
        self, z: CodeVector, log_snr: Time, drop: Tensor | None = None, covariate: Tensor | None = None
    ) -> Observed:
        """log_snr (B,): that of the x_t to combine with; drop (B,), bool: where the code is dropped; covariate (B,
        K)."""
        mu, v = self.network(z if covariate is None else torch.cat([z, covariate], 1)).float().chunk(2, 1)
        rho = torch.exp(-(v.clamp(-6, 8) + 2))
        if self.until is not None:
            rho = rho * expand((self.until - log_snr).clamp(0, 1), rho)
        return mu, rho if drop is None else rho.masked_fill(expand(drop, rho), 0.0)


def fuse(y: Data, s: Tensor, observed: Observed) -> tuple[Data, Data]:
    """y = x + s eps, of precision SNR = 1 / s^2, and a second observation mu of precision rho, as one: (y', s').

    y' = (SNR y + rho mu) / (SNR + rho), s' = (SNR + rho)^(-1/2), computed such that rho = 0 gives exactly y and s.
    """
    mu, rho = observed
    ratio = rho * s**2  # rho / SNR
    return y + ratio / (1 + ratio) * (mu - y), s / (1 + ratio).sqrt()
