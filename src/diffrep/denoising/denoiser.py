"""A denoiser: a network, a noise process and a parameterisation, which together predict x and eps."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import torch
from torch import nn

from diffrep.denoising.noise import Noise
from diffrep.denoising.parameterisations import Parameterisation
from diffrep.errors import UserError
from diffrep.shapes import CodeVector, Data, Draws, Time, expand


@dataclass(frozen=True)
class Prediction:
    """A denoiser's estimates of the clean x and the noise eps, with x_t = alpha x + sigma eps exactly."""

    x: Data
    eps: Data
    alpha: Time
    sigma: Time

    @classmethod
    def from_x(cls, x: Data, x_t: Data, alpha: Time, sigma: Time) -> Prediction:
        """The prediction of a denoiser that estimates x; eps follows."""
        return cls(x, (x_t - expand(alpha, x) * x) / expand(sigma, x), alpha, sigma)

    @classmethod
    def from_eps(cls, eps: Data, x_t: Data, alpha: Time, sigma: Time) -> Prediction:
        """The prediction of a denoiser that estimates eps; x follows."""
        return cls((x_t - expand(sigma, eps) * eps) / expand(alpha, eps), eps, alpha, sigma)

    @property
    def score(self) -> Data:
        """grad log p_t(x_t) = -eps / sigma."""
        return -self.eps / expand(self.sigma, self.eps)


class Denoiser(nn.Module):
    """(x_t, t, z) -> Prediction. Schedule and parameterisation stay in float32 whatever the network runs in.

    observation: an `Observation`, which estimates each number of x from the code; the parameterisation combines the
    estimate with x_t in front of the network. None: the code goes to the network alone. covariates: share of
    the examples that have each value of a covariate, which network and observation get too; empty: there is none.
    """

    def __init__(
        self,
        network: nn.Module,
        noise: Noise,
        parameterisation: Parameterisation,
        observation: nn.Module | None = None,
        covariates: tuple[float, ...] = (),
    ):
        super().__init__()
        self.network, self.noise, self.parameterisation = network, noise, parameterisation
        self.observation, self.covariates = observation, covariates
        self.covariate: torch.Tensor | None = None

    def given(self, covariate: torch.Tensor | None) -> Denoiser:
        """The same weights for examples with this covariate, (B, K), 1 at the value of each; of a batch of n B examples
        each n have one. Without covariates it is the denoiser itself."""
        if not self.covariates:
            return self
        other = copy(self)
        other.covariate = covariate
        return other

    def drawn(self, n: int, draws: Draws) -> torch.Tensor | None:
        """(n, K) covariates as often as the data has them; None without covariates."""
        if not self.covariates:
            return None
        u = draws.uniform(n)
        ends = torch.tensor(self.covariates).cumsum(0).to(u)
        places = torch.searchsorted(ends, u, right=True).clamp(max=len(ends) - 1)
        return nn.functional.one_hot(places, len(ends)).float()

    @property
    def networks(self) -> list[nn.Module]:
        """The networks with weights that read a code or x_t."""
        return [self.network] if self.observation is None else [self.network, self.observation]

    def forward(self, x_t: Data, t: Time, z: CodeVector | None = None, drop: torch.Tensor | None = None) -> Prediction:
        """x_t (B, *shape), t (B,), z (B, d) or None (the null code); drop (B,) is true where the code is dropped."""
        return self.at(x_t, self.noise.scales(t), self.noise.log_snr(t), z, drop)

    def at(
        self,
        x_t: Data,
        scales: tuple[Time, Time],
        log_snr: Time,
        z: CodeVector | None = None,
        drop: torch.Tensor | None = None,
    ) -> Prediction:
        """The same for given alpha, sigma and log_snr at t, (B,) each."""
        alpha, sigma = scales
        wide = (expand(alpha, x_t), expand(sigma, x_t))
        scale = (wide[0] ** 2 + wide[1] ** 2).sqrt()
        more = {"covariate": self._covariate(len(x_t))} if self.covariates else {}
        observed = None if self.observation is None or z is None else self.observation(z, log_snr, drop, **more)
        extra, finish = self.parameterisation(x_t, *wide, observed)
        output = self.network(x_t / scale, log_snr, z, extra=extra, drop=drop, **more).float()
        x, eps = finish(output)
        return Prediction(x, eps, alpha, sigma)

    def _covariate(self, n: int) -> torch.Tensor:
        if self.covariate is None:
            raise UserError(
                "the decoder was trained with data.covariate, and these examples have none of its values: give data"
                " with that column and the values of the training"
            )
        return self.covariate.repeat_interleave(n // len(self.covariate), 0)
