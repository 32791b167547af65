"""A prior that bends a standard normal: a neural spline flow, from zuko."""

from __future__ import annotations

import torch
from torch import Tensor

from diffrep.codes import Code
from diffrep.errors import UserError
from diffrep.priors import Prior, descend, standard
from diffrep.shapes import CodeVector, Draws, PerExample


class Flow(Prior):
    """p(z) of an autoregressive neural spline flow (Durkan et al. 2019) over (z - shift) / scale.

    shift and scale are zero and one until `fit` sets them: a rate that the flow is trained by keeps codes around
    N(0, I) by itself. UserError where zuko is not installed.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, dim: int, transforms: int = 2, width: int = 64):
        super().__init__()
        try:
            from zuko.flows import NSF
        except ImportError as error:
            raise UserError(
                "a flow prior needs zuko: `pip install 'diffrep[priors]'`, or prior.kind=mixture"
            ) from error
        self.flow = NSF(dim, transforms=transforms, hidden_features=(width, width))
        self.register_buffer("shift", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def fit(self, codes: Tensor) -> None:
        """codes (N, d): 400 steps of Adam on codes of unit variance."""
        codes = codes.to(self.shift)
        shift, scale = standard(codes)
        descend(self, lambda z: -self.flow().log_prob(z), (codes - shift) / scale, steps=400, lr=3e-3)
        self.shift.copy_(shift)
        self.scale.copy_(scale)

    def sample(self, n: int, draws: Draws) -> CodeVector:
        return self.shift + self.scale * self.flow().transform.inv(draws.normal(n, len(self.shift)))

    def log_prob(self, z: CodeVector) -> PerExample:
        return self.flow().log_prob((z - self.shift) / self.scale) - self.scale.log().sum()

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        return code.log_prob(z) - self.log_prob(z)
