"""Encoders that predict the code that a slowly moving copy gives to another view."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.codes.posteriors import Posterior
from diffrep.data.views import View
from diffrep.models.encoder_only import EncoderOnly
from diffrep.shapes import Batch, Shape, Terms


class Follower(nn.Module):
    """A copy of a network whose weights are the moving average of the network's, with this decay."""

    def __init__(self, network: nn.Module, decay: float):
        super().__init__()
        self.copy, self.decay = copy.deepcopy(network).requires_grad_(False), decay
        self.leads = [network]  # in a list, so that it is not registered as a submodule

    def forward(self, x: Tensor) -> Any:
        return self.copy(x)

    @torch.no_grad()
    def advance(self) -> None:
        """A training step is done."""
        for own, lead in zip(self.copy.parameters(), self.leads[0].parameters(), strict=True):
            own.lerp_(lead, 1 - self.decay)


class Bootstrap(EncoderOnly):
    """BYOL (Grill et al. 2020): no negative examples; a predictor and a slow target prevent collapse.

    The loss of an example does not depend on others, so processes and micro-batches together equal one batch.
    """

    def __init__(
        self,
        shape: Shape,
        bins: int | None,
        posterior: Posterior,
        head: nn.Module,
        predictor: nn.Module,
        view: View,
        decay: float,
    ):
        super().__init__(shape, bins, posterior)
        self.head, self.predictor, self.view = head, predictor, view
        self.slow_posterior, self.slow_head = Follower(posterior, decay), Follower(head, decay)
        self.changing = (self.slow_posterior, self.slow_head)
        self.parts = {"model": {"encoder": [posterior], "head": [head, predictor]}}

    def loss(self, batch: Batch, player: str = "model") -> Terms:
        """|q - target|^2 of unit vectors, 2 - 2 cos, for both orders of the views (BYOL, Eq. 2)."""
        a, b = (self.view(batch.x, batch.random) for _ in range(2))
        code = self.posterior(torch.cat([a, b])).mean
        self.observe(code)
        prediction = self.predictor(self.head(code)).float()
        with torch.no_grad():
            target = self.slow_head(self.slow_posterior(torch.cat([b, a])).mean).float()
        return {"bootstrap": (2 - 2 * F.cosine_similarity(prediction, target)).unflatten(0, (2, -1)).sum(0)}
