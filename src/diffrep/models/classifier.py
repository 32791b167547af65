"""An encoder that learns from labels: an upper reference for other codes, and a feature network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.codes.posteriors import Posterior
from diffrep.errors import UserError
from diffrep.models.encoder_only import EncoderOnly
from diffrep.shapes import Batch, Data, Shape, Terms


class Classifier(EncoderOnly):
    """A linear layer from the code to `classes` scores, trained together: the code is the penultimate layer."""

    def __init__(self, shape: Shape, bins: int | None, posterior: Posterior, classes: int):
        super().__init__(shape, bins, posterior)
        if classes < 2:
            raise UserError(f"a classifier expects data with labels of at least two classes, got {classes} of them")
        self.scores = nn.Linear(posterior.dim, classes)
        self.parts = {"model": {"encoder": [posterior], "head": [self.scores]}}

    def loss(self, batch: Batch, player: str = "model") -> Terms:
        """Cross entropy, nats; 0 for an example without a label (-1)."""
        if batch.label is None:
            raise UserError("a classifier learns from labels and this data has none; train a method that needs none")
        code = self.posterior(batch.x).mean
        self.observe(code)
        return {"label": F.cross_entropy(self.scores(code), batch.label, ignore_index=-1, reduction="none")}

    @torch.no_grad()
    def log_probs(self, x: Data) -> Tensor:
        """log p(class | x), (B, classes)."""
        return torch.log_softmax(self.scores(self.posterior(x).mean), 1)
