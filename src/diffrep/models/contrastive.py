"""Encoders that learn to give two views of an example the same code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from diffrep.codes.posteriors import Posterior
from diffrep.data.views import View
from diffrep.errors import UserError
from diffrep.models.encoder_only import EncoderOnly
from diffrep.shapes import Batch, CodeVector, Shape, Terms

Compare = Callable[[CodeVector, CodeVector], Terms]  # projections of two views -> named terms


def compared(head: nn.Module, a: CodeVector, b: CodeVector, compare: Compare) -> Terms:
    """The loss between the projections of two views' codes (B, d), in float32. UserError for a batch of one."""
    if len(a) < 2:
        raise UserError("views are compared with those of other examples, got a batch of one; raise train.batch")
    projected = head(torch.cat([a, b])).float()
    with torch.autocast(a.device.type, enabled=False):  # a mean over the batch needs all its digits
        return compare(*projected.chunk(2))


class Contrastive(EncoderOnly):
    """Two views of each example, one encoder, a head that is used in training only, and a loss on its outputs.

    The code is the input of the head, as in SimCLR and VICReg. The loss couples the examples of a batch, and each
    process and each micro-batch compares its own shard alone. So two processes with 32 examples do not equal one with
    64.
    """

    def __init__(
        self, shape: Shape, bins: int | None, posterior: Posterior, head: nn.Module, view: View, compare: Compare
    ):
        super().__init__(shape, bins, posterior)
        self.head, self.view, self.compare = head, view, compare
        self.networks = [posterior.encoder, head]
        self.parts = {"model": {"encoder": [posterior], "head": [head]}}

    def loss(self, batch: Batch, player: str = "model") -> Terms:
        views = [self.view(batch.x, batch.random) for _ in range(2)]
        code = self.posterior(torch.cat(views)).mean
        self.observe(code)
        a, b = code.chunk(2)
        return compared(self.head, a, b, self.compare)
