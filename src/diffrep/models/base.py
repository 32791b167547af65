"""A model is trained and encodes. Its `generative` half decodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffrep.codes.posteriors import Code, Posterior
from diffrep.codes.priors import Prior
from diffrep.denoising.samplers import SMOOTH, USUAL, Sampling, sampling_named
from diffrep.errors import UserError
from diffrep.models.code_use import told_apart
from diffrep.models.diffusion_decoder import DiffusionDecoder
from diffrep.models.generative import CodePath, Generative, Given, in_batches
from diffrep.models.loss_weights import Changing, Lag
from diffrep.shapes import Batch, CodeVector, Data, Draws, PerExample, Shape, Terms, Time, mix


class Model(nn.Module, ABC):
    """A model with a loss, and an encoder where `posterior`, q(z | x, t), is not None.

    `generative` makes examples, None for a model that only encodes; `diffusion` is the same object where it removes
    noise, else None. prior: p(z), None where no code can be drawn.
    """

    networks: list[nn.Module]  # the modules to compile, and whose parts FSDP gathers one by one
    target: float | None = None  # nats at which training holds the rate
    parts: dict[str, dict[str, list[nn.Module]]]  # player -> group of parameters -> the modules that own them
    changing: tuple[Changing, ...] = ()  # weights and densities that change from step to step
    lag: Lag | None = None  # states the extra turns of the encoder

    def __init__(self, shape: Shape, bins: int | None, posterior: Posterior | None, prior: Prior | None = None):
        super().__init__()
        self.shape, self.bins, self.posterior, self.prior = shape, bins, posterior, prior
        self.health: dict[str, Tensor] = {}  # of the last training step
        self.drawn: tuple[Code, CodeVector] | None = None  # z of that step and its codes, where codes are random

    @abstractmethod
    def loss(self, batch: Batch, player: str = "model") -> Terms:
        """Named terms (B,), nats; `player` minimises the mean of their sum."""

    @property
    def generative(self) -> Generative | None:
        return None

    @property
    def diffusion(self) -> DiffusionDecoder | None:
        return None

    @property
    def has_code(self) -> bool:
        return self.posterior is not None

    @property
    def timed(self) -> bool:
        """Whether the code depends on the noise level."""
        return self.posterior is not None and self.posterior.timed

    @property
    def by_steps(self) -> bool:
        """Whether it decodes with a sampler, not in one pass."""
        return self.diffusion is not None

    @property
    def no_bound(self) -> str | None:
        """Why there is no bound on -log p(x), in one sentence; None where there is one."""
        if self.generative is None:
            return "this method has no decoder, so it has no p(x) and no bound; probe the codes"
        return self.generative.no_bound

    def bound(self, batch: Batch, levels: int = 8, code: Code | None = None) -> Terms:
        """The bound on -log p(x) at weight one, as in `Generative.bound`; UserError where there is `no_bound`."""
        if self.generative is None:
            raise UserError(f"{self.no_bound}")
        return self.generative.bound(batch, levels, code)

    def ends(self, batch: Batch, code: Code | None = None) -> Terms:
        """The terms of the bound that do not depend on a noise level, as in `Generative.ends`; UserError as for
        `bound`."""
        if self.generative is None:
            raise UserError(f"{self.no_bound}")
        return self.generative.ends(batch, code)

    def needs_diffusion(self, lack: str) -> DiffusionDecoder:
        """`diffusion`; UserError where it is None. lack: the consequence, for the message."""
        if self.diffusion is None:
            raise UserError(
                f"this method decodes without noise, or not at all, so {lack}; train a diffusion model, such as vae-vdm"
            )
        return self.diffusion

    def denoising_by_level(self, batch: Batch, levels: int = 8, with_code: bool = True) -> Tensor:
        """(B, levels) the diffusion loss at weight one by noise level, nats; UserError where no noise is removed."""
        return self.needs_diffusion("it removes no noise").denoising_by_level(batch, levels, with_code)

    def flow_bound(self, batch: Batch, steps: int = 50) -> PerExample:
        """-log p(x) by the probability flow, (B,) nats; UserError for a model with a code, or without noise."""
        return self.needs_diffusion("it has no probability flow").flow_bound(batch, steps)

    @torch.no_grad()
    def encode(self, x: Data, t: float | Time | None = None) -> Code:
        """x (B, *shape) -> its code; t in [0, 1], a number or (B,), for a time-conditioned code (1/2 if left out).

        UserError where there is no code, or where the code does not depend on t.
        """
        return self.need_code(t)(x, self.code_log_snr(t, len(x), x.device))

    def need_code(self, t: object = None) -> Posterior:
        """q(z | x, t); UserError where there is no code, or where a t is given and the code does not depend on it."""
        if self.posterior is None:
            raise UserError("this method has no code; train one that has (`diffrep methods` lists them)")
        if t is not None and not self.timed:
            raise UserError("this code does not depend on t; leave t out, or train tdrl or tvdrl")
        return self.posterior

    def code_log_snr(self, t: float | Time | None, n: int, device: torch.device) -> Time | None:
        """The log-SNRs (n,) for a time-conditioned encoder and n examples; None for other encoders."""
        if not self.timed or self.diffusion is None:
            return None
        at = torch.as_tensor(0.5 if t is None else t, dtype=torch.float32, device=device).expand(n)
        return self.diffusion.noise.log_snr(at)

    @torch.no_grad()
    def decode(
        self,
        z: Given,
        n: int,
        draws: Draws,
        sampling: Sampling = USUAL,
        x_1: Data | None = None,
        covariate: Tensor | None = None,
    ) -> Data:
        """n examples in [-1, 1] from codes, as in `Generative.decode`; UserError for a model that only encodes.

        covariate (n, K), or (1, K) for all: what the decoder gets beside the code, where it was trained with one.
        """
        if self.generative is None:
            raise UserError("this method has an encoder and no decoder, so it makes no examples; train drl or vae-vdm")
        return self.generative.given(covariate).decode(z, n, draws, sampling, x_1)

    def covariate(self, n: int, draws: Draws) -> Tensor | None:
        """(n, K) covariates, drawn as often as the data has them; None for a decoder without one."""
        return None if self.generative is None else self.generative.covariate(n, draws)

    def covariates(self, n: int, seed: int) -> Tensor | None:
        """(n, K) those that `sample` gives to n examples: that of example i depends on `seed` and i alone."""

        def drawn(rows: slice, draws: Draws) -> Tensor:
            made = self.covariate(rows.stop - rows.start, draws)
            assert made is not None, "the first example has one"
            return made

        apart = mix(seed, "covariate")  # from other numbers than codes and noise
        return None if self.covariate(1, Draws.of(apart, self._device)) is None else self._in_batches(n, apart, drawn)

    @torch.no_grad()
    def invert(self, x: Data, steps: int = 100, covariate: Tensor | None = None) -> Data:
        """x -> the standard normal x_1 from which its own code decodes x; UserError for a model without diffusion."""
        diffusion = self.needs_diffusion("there is no x_1 to invert to").given(covariate)
        return diffusion.invert(x, self.code_path(x) if self.has_code else None, steps)

    def watch(self) -> dict[str, float]:
        """Health of the last training step, for the log; costs a pass of the decoder where there is a code."""
        information = {} if self.drawn is None else {"information_nats": told_apart(*self.drawn)}
        return {name: float(value) for name, value in (self.health | information | self.shuffled()).items()}

    def shuffled(self) -> dict[str, Tensor]:
        """gap_nats: rise of the loss of the last step with shuffled codes, nats; empty for a model without a
        decoder."""
        return {}

    def forward(self, batch: Batch, player: str = "model") -> Terms:
        return self.loss(batch, player)

    def advance(self) -> None:
        """A training step is done, of all players and on all processes: weights that change take their step."""
        for changing in self.changing:
            changing.advance()

    def order(self, step: int) -> list[str]:
        """The players of a step, in turn."""
        extra = 0 if self.lag is None else self.lag.turns(step)
        return [*(player for player in self.parts if player != "encoder"), *["encoder"] * extra]

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the networks only: the slope of a noise process calls autograd, which cannot be compiled. UserError:
        no network of the model can be."""
        if not self.networks:
            raise UserError("expected train.compile=false: this method differentiates twice, which cannot be compiled.")
        for network in self.networks:
            network.compile(*args, **kwargs)

    def players(self) -> dict[str, dict[str, list[nn.Parameter]]]:
        """player -> group -> the parameters that it trains; gradients are clipped for each group separately."""
        return {
            player: {
                group: [p for module in modules for p in module.parameters() if p.requires_grad]
                for group, modules in groups.items()
                if any(p.requires_grad for module in modules for p in module.parameters())
            }
            for player, groups in self.parts.items()
        }

    @torch.no_grad()
    def sample(
        self,
        n: int,
        draws: Draws | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        seed: int = 0,
        spacing: str | None = None,
    ) -> Data:
        """n examples in [-1, 1] from the model: a code from the prior where there is one, then the decoder.

        Example i depends on `seed` and i alone, see `in_batches`; with `draws` all are made at once,
        from these random numbers. sampler, steps, spacing: see `sampling_named`. A time-conditioned code has no prior
        over all times, so its decoder gets the null code.
        """
        sampling = sampling_named(sampler, steps, spacing)
        beside = self.covariates(n, seed) if draws is None else self.covariate(n, draws)

        def make(rows: slice, draws: Draws) -> Data:
            count = rows.stop - rows.start
            z = None if self.prior is None or self.timed else self.prior.sample(count, draws)
            return self.decode(z, count, draws, sampling, covariate=None if beside is None else beside[rows])

        return self._in_batches(n, seed, make) if draws is None else make(slice(0, n), draws)

    @torch.no_grad()
    def decode_each(self, z: CodeVector, seed: int = 0, sampling: Sampling = USUAL) -> Data:
        """(N, *shape) from codes (N, d); example i depends on its code, `seed` and i alone, as in `sample`."""
        beside = self.covariates(len(z), seed)

        def make(rows: slice, draws: Draws) -> Data:
            some, of_some = z[rows], None if beside is None else beside[rows]
            return self.decode(some, len(some), draws, sampling, covariate=of_some)

        return self._in_batches(len(z), seed, make)

    @torch.no_grad()
    def reconstruct(
        self,
        x: Data,
        draws: Draws | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        per_code: int = 1,
        seed: int = 0,
        covariate: Tensor | None = None,
        spacing: str | None = None,
    ) -> Tensor:
        """(B * per_code, *shape): each x decoded from the mean of its code, `per_code` times with other noise.

        draws, seed and the rest: as in `sample`. covariate (B or 1, K): of each x, where the decoder was trained with
        one.
        """
        sampling = sampling_named(sampler, steps, spacing)
        x = x.repeat_interleave(per_code, 0)
        given = None if covariate is None else covariate.expand(len(x) // per_code, -1).repeat_interleave(per_code, 0)

        def make(rows: slice, draws: Draws) -> Data:
            some, of_some = x[rows], None if given is None else given[rows]
            return self.decode(self.code_path(some), len(some), draws, sampling, covariate=of_some)

        return self._in_batches(len(x), seed, make) if draws is None else make(slice(0, len(x)), draws)

    @torch.no_grad()
    def reconstruct_exactly(self, x: Data, steps: int = 100, covariate: Tensor | None = None) -> Data:
        """Like x: decoded from its code, if it has one, and its own noise; exact but for the error of the steps."""

        def make(rows: slice, draws: Draws) -> Data:
            some, of_some = x[rows], covariate if covariate is None or len(covariate) == 1 else covariate[rows]
            path, x_1 = self.code_path(some) if self.has_code else None, self.invert(some, steps, of_some)
            return self.decode(path, len(some), draws, Sampling("heun", steps), x_1, of_some)

        return self._in_batches(len(x), 0, make)

    @torch.no_grad()
    def interpolate(
        self,
        a: Tensor,
        b: Tensor,
        points: int = 8,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        covariate: Tensor | None = None,
        spacing: str | None = None,
    ) -> Tensor:
        """(points, *shape): from codes on the straight line between those of a and b (*shape), all from one x_1.

        sampler, steps, spacing: as in `sample`, but for the sampler, which by default adds no noise. covariate (1, K):
        as in `decode`.
        """
        draws, sampling = Draws.of(seed, a.device), sampling_named(sampler, steps, spacing, SMOOTH)
        share = torch.linspace(0, 1, points, device=a.device)[:, None]
        from_a, from_b = (self.code_path(x.expand(points, *self.shape)) for x in (a, b))
        x_1 = draws.normal(1, *self.shape).expand(points, *self.shape)

        def path(t: Time) -> CodeVector:
            return torch.lerp(from_a(t), from_b(t), share)

        return self.decode(path, points, draws, sampling, x_1, covariate)

    def _in_batches(self, n: int, seed: int, make: Callable[[slice, Draws], Data]) -> Data:
        return in_batches(n, seed, self._device, make)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    def code_path(self, x: Data) -> CodePath:
        """The mean code of x (B, *shape) as a function of t; constant unless the code is time-conditioned."""
        if self.timed:
            return lambda t: self.encode(x, t).mean
        z = self.encode(x).mean
        return lambda t: z


class evaluating:
    """`with evaluating(model) as device`: evaluation mode inside, the former mode after."""

    def __init__(self, model: Model):
        self.model = model

    def __enter__(self) -> torch.device:
        self.was_training = self.model.training
        self.model.eval()
        return next(self.model.parameters()).device

    def __exit__(self, *_: object) -> None:
        self.model.train(self.was_training)
