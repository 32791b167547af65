"""Models that only encode."""

from __future__ import annotations

from abc import ABC

import torch

from diffrep.codes.posteriors import Posterior
from diffrep.models.base import Model
from diffrep.models.code_use import code_health
from diffrep.shapes import Batch, CodeVector, Shape, Terms


class EncoderOnly(Model, ABC):
    """A model with a code and without a decoder. A subclass defines `loss`."""

    posterior: Posterior

    def __init__(self, shape: Shape, bins: int | None, posterior: Posterior):
        super().__init__(shape, bins, posterior)
        self.networks, self.parts = [posterior.encoder], {"model": {"encoder": [posterior]}}

    def observe(self, code: CodeVector) -> None:
        """Record the active units and the variance of the codes (B, d) of this step."""
        self.health = code_health(code)


class Untrained(EncoderOnly):
    """The encoder with its initial weights: a reference for learned codes."""

    def __init__(self, shape: Shape, bins: int | None, posterior: Posterior):
        super().__init__(shape, bins, posterior.requires_grad_(False))

    def loss(self, batch: Batch, player: str = "model") -> Terms:
        """0: nothing is trained."""
        return {"nothing": torch.zeros(len(batch), device=batch.x.device)}
