"""Methods that encode and do nothing else, behind the same seam."""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor

from diffrep.codes.posteriors import Code, Posterior
from diffrep.errors import UserError
from diffrep.models.base import CodePath, Model
from diffrep.shapes import Batch, CodeVector, Data, Draws, PerExample, Shape, Terms


class EncoderOnly(Model, ABC):
    """A code of x without a decoder: what would need one is a UserError. Such a model states `loss`."""

    def __init__(self, shape: Shape, bins: int | None, posterior: Posterior):
        super().__init__()
        self.shape, self.bins, self.has_code, self.timed, self.prior = shape, bins, True, False, None
        self.posterior, self.networks = posterior, [posterior.encoder]
        self.parts, self.health = {"model": {"encoder": [posterior]}}, {}

    def observe(self, code: CodeVector) -> None:
        """Note how alive the codes (B, d) of this step are."""
        variance = code.detach().var(0)
        self.health = {"active_units": (variance > 0.01).sum(), "code_variance": variance.mean()}

    def bound(self, batch: Batch, levels: int = 8, code: Code | None = None) -> Terms:
        raise UserError("a code without a decoder says nothing of p(x), so there is no bound; probe the codes")

    def denoising_by_level(self, batch: Batch, levels: int = 8, with_code: bool = True) -> Tensor:
        raise UserError("this method has no decoder, and it removes no noise; probe its codes")

    def flow_bound(self, batch: Batch, steps: int = 50) -> PerExample:
        raise UserError("this method has no decoder, so it has no probability flow; probe its codes")

    @torch.no_grad()
    def encode(self, x: Data, t: float | Tensor | None = None) -> Code:
        if t is not None:
            raise UserError("this code does not depend on t; leave t out, or train tdrl or tvdrl")
        return self.posterior(x)

    def decode(
        self,
        z: CodeVector | CodePath | None,
        n: int,
        draws: Draws,
        sampler: str = "dpm",
        steps: int = 50,
        x_1: Data | None = None,
    ) -> Data:
        raise UserError("this method has an encoder and no decoder, so it makes no examples; train drl or vae-vdm")

    def invert(self, x: Data, steps: int = 100) -> Data:
        raise UserError("this method has an encoder and no decoder, and no noise to find; train drl or vae-vdm")

    def shuffled(self) -> dict[str, Tensor]:
        return {}


class Untrained(EncoderOnly):
    """The encoder as it was drawn: what a code is worth before anything is learned."""

    def __init__(self, shape: Shape, bins: int | None, posterior: Posterior):
        super().__init__(shape, bins, posterior.requires_grad_(False))

    def loss(self, batch: Batch, player: str = "model") -> Terms:
        """Nothing to lower."""
        return {"nothing": torch.zeros(len(batch), device=batch.x.device)}
