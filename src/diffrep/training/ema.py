"""The exponential moving average of a model's weights."""

from __future__ import annotations

import torch
from torch import Tensor

from diffrep.training.interface import Weights
from diffrep.training.sharding import part_of


class EMA:
    """Average of the parameters over steps, with a warm-up that removes the initial weights from it; buffers are
    copied.

    After update n = 0, 1, ...: average <- d average + (1 - d) weights, with d = min(decay, (1 + n) / (10 + n)).
    `weights` holds the names of `model.state_dict()`; a weight of several names is averaged under each.
    """

    def __init__(self, model: Weights, decay: float):
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._averaged = {
            name for name, value in model.named_parameters(remove_duplicate=False) if value.is_floating_point()
        }

    def rate(self, n: int) -> float:
        """The decay d of update n."""
        return min(self.decay, (1 + n) / (10 + n))

    @torch.no_grad()
    def update(self, model: Weights, n: int) -> None:
        """Update the average with the weights of the model after its step n."""
        for name, value in model.state_dict().items():
            if name in self._averaged:
                self.weights[name].lerp_(value, 1 - self.rate(n))
            else:
                self.weights[name].copy_(value)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Continue from a saved average."""
        for name, value in self.weights.items():
            value.copy_(part_of(weights[name], value))
