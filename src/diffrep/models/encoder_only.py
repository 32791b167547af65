"""Models that encode and do nothing else."""

from __future__ import annotations

from abc import ABC

import torch

from diffrep.codes.posteriors import Posterior
from diffrep.models.base import Model
from diffrep.models.code_use import code_health
from diffrep.shapes import Batch, CodeVector, Shape, Terms


class EncoderOnly(Model, ABC):
    """A code of x without a decoder. Such a model states `loss`."""

    posterior: Posterior

    def __init__(self, shape: Shape, bins: int | None, posterior: Posterior):
        super().__init__(shape, bins, posterior)
        self.networks, self.parts = [posterior.encoder], {"model": {"encoder": [posterior]}}

    def observe(self, code: CodeVector) -> None:
        """Note how alive the codes (B, d) of this step are."""
        self.health = code_health(code)


class Untrained(EncoderOnly):
    """The encoder as it was drawn: what a code is worth before anything is learned."""

    def __init__(self, shape: Shape, bins: int | None, posterior: Posterior):
        super().__init__(shape, bins, posterior.requires_grad_(False))

    def loss(self, batch: Batch, player: str = "model") -> Terms:
        """Nothing to lower."""
        return {"nothing": torch.zeros(len(batch), device=batch.x.device)}
