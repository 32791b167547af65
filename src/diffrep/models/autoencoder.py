"""Autoencoders with the interface of all models: codes without diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffrep.codes.posteriors import Code, Posterior
from diffrep.codes.priors import Prior
from diffrep.data.views import Hide, View
from diffrep.denoising.samplers import USUAL, Sampling
from diffrep.errors import UserError
from diffrep.models.base import Model
from diffrep.models.code_use import MOST, code_health
from diffrep.models.generative import Generative, Given
from diffrep.models.loss_weights import Weight, rate_target, weighted
from diffrep.shapes import Batch, CodeVector, Data, Draws, PerExample, Shape, Terms, sum_features


class Autoencoder(Model):
    """Encoder, generator, squared error: AE with a deterministic code, VAE with a Gaussian one.

    p(x | z) is a Gaussian around the generator's output with one learned spread for each channel. For grey levels it is
    the mass of that Gaussian on the interval of each grey level (the outer intervals are infinite), so that the bound
    of a VAE is in bits per dimension (Kingma and Welling 2014; Salimans et al. 2017 for the intervals).

    view: changes x for the encoder in training (a denoising autoencoder: adds noise). hide: the numbers that the
    encoder then gets as zero; the loss is that of the hidden numbers alone. This is a masked autoencoder for any
    encoder: He et al. 2022 remove hidden patches from the input of a transformer, which a convolution cannot.
    """

    posterior: Posterior
    prior: Prior

    def __init__(
        self,
        shape: Shape,
        bins: int | None,
        posterior: Posterior,
        generator: nn.Module,
        prior: Prior,
        weights: Mapping[str, Weight] | None = None,
        view: View | None = None,
        hide: Hide | None = None,
    ):
        super().__init__(shape, bins, posterior, prior)
        self.generator, self.view, self.hide = generator, view, hide
        self.networks = [posterior.encoder, generator]
        self.log_spread = nn.Parameter(torch.full((shape[0], *[1] * (len(shape) - 1)), -1.0))
        weights = weights or {}
        self.weights, self.target, self.changing = nn.ModuleDict(weights), rate_target(weights), tuple(weights.values())
        self.parts = {
            "model": {
                "encoder": [posterior],
                "decoder": [generator, nn.ParameterList([self.log_spread])],
                "prior": [prior],
            }
        }
        self.last: tuple[Data, CodeVector] | None = None

    @property
    def generative(self) -> GeneratorDecoder:
        return GeneratorDecoder(self.bins, self.posterior, self.prior, self.generator, self.log_spread)

    def loss(self, batch: Batch, player: str = "model") -> Terms:
        x, draws = batch.x, batch.random
        view = x if self.view is None else self.view(x, draws)
        hidden = None if self.hide is None else self.hide(x, draws)
        code = self.posterior(view if hidden is None else view.masked_fill(hidden, 0.0))
        z = code.sample(draws.normal(*code.mean.shape))
        values = {"reconstruction": self.surprise(x, self.generator(z), hidden)}
        if code.spread is not None:
            values["rate"] = self.prior.rate(code, z)
        self.health, self.last = code_health(code.mean), (x, z.detach())
        self.drawn = None if code.spread is None else (code.detached(), z.detach())
        if "rate" in values:
            self.health["rate_nats"] = values["rate"].detach().mean()
        return weighted(self.weights, values)

    @torch.no_grad()
    def shuffled(self) -> dict[str, Tensor]:
        if self.last is None:
            return {}
        x, z = (values[:MOST] for values in self.last)
        with torch.compiler.set_stance("force_eager"):
            mean = self.generator(torch.cat([z, z.roll(1, 0)]))
        own, other = self.surprise(torch.cat([x, x]), mean.float()).chunk(2)
        return {"gap_nats": (other - own).mean()}

    def surprise(self, x: Data, mean: Data, counted: Tensor | None = None) -> PerExample:
        """-log p(x | z), nats for each example, with `mean` the generator's output; see `GeneratorDecoder.surprise`."""
        return self.generative.surprise(x, mean, counted)


@dataclass(frozen=True)
class GeneratorDecoder(Generative):
    """p(x | z) of a generator, which decodes in one pass: a Gaussian around its output, log_spread for each channel."""

    bins: int | None
    posterior: Posterior
    prior: Prior
    generator: nn.Module
    log_spread: Tensor

    @property
    def no_bound(self) -> str | None:
        return "a deterministic code has no finite rate, so there is no bound" if self.posterior.deterministic else None

    def surprise(self, x: Data, mean: Data, counted: Tensor | None = None) -> PerExample:
        """-log p(x | z), nats for each example. counted: mask like x of the numbers to sum over, None for all."""
        nats = self._surprises(x, mean)
        return sum_features(nats if counted is None else nats * counted)

    def _surprises(self, x: Data, mean: Data) -> Data:
        std = self.log_spread.clamp(-7, 3).exp().expand_as(x)
        gaussian = torch.distributions.Normal(mean.float(), std, validate_args=False)  # a check would wait for the GPU
        if self.bins is None:
            return -gaussian.log_prob(x)
        half = 1 / self.bins
        low, high = (x - half - mean) / std, (x + half - mean) / std
        low = low.masked_fill(x - half < -1 + half / 2, -torch.inf)
        high = high.masked_fill(x + half > 1 - half / 2, torch.inf)
        return -_log_mass(low, high)

    def bound(self, batch: Batch, levels: int = 8, code: Code | None = None) -> Terms:
        if self.no_bound is not None:
            raise UserError(self.no_bound)
        x, draws = batch.x, batch.random
        code = self.posterior(x) if code is None else code
        zero = torch.zeros(len(x), device=x.device)
        nats = torch.stack(
            [self.surprise(x, self.generator(code.sample(draws.normal(*code.mean.shape)))) for _ in range(levels)]
        ).mean(0)
        rate = self.prior.rate(code, code.sample(draws.normal(*code.mean.shape)))
        return {"diffusion": zero, "prior": zero, "reconstruction": nats, "rate": rate}

    @torch.no_grad()
    def decode(self, z: Given, n: int, draws: Draws, sampling: Sampling = USUAL, x_1: Data | None = None) -> Data:
        """The generator's output, at once: sampling and x_1 have no part in it."""
        z = z(torch.zeros(n)) if callable(z) else z
        if z is None or tuple(z.shape) != (n, self.posterior.dim):
            came = None if z is None else tuple(z.shape)
            raise UserError(f"expected codes of shape ({n}, {self.posterior.dim}), got {came}")
        x = self.generator(z).float()
        return x.clamp(-1, 1) if self.bins is not None else x


def _log_mass(low: Tensor, high: Tensor) -> Tensor:
    """log(Phi(high) - Phi(low)) without cancellation: mirrored to the left tail, where log_ndtr is exact."""
    mirrored = low > 0
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return log_high + torch.log1p(-torch.exp((log_low - log_high).clamp(max=-1e-7)))
