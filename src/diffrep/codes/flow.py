"""A prior that transforms a standard normal: a neural spline flow, from zuko."""

from __future__ import annotations

from torch import Tensor

from diffrep.codes.posteriors import Code
from diffrep.codes.priors import Prior, descend
from diffrep.errors import UserError
from diffrep.shapes import CodeVector, Draws, PerExample


class Flow(Prior):
    """p(z) of an autoregressive neural spline flow (Durkan et al. 2019), which transforms N(0, I) within five standard
    deviations.

    UserError where zuko is not installed.
    """

    def __init__(self, dim: int, transforms: int = 2, width: int = 64):
        super().__init__()
        self.dim = dim
        try:
            from zuko.flows import NSF
        except ImportError as error:
            raise UserError(
                "a flow prior needs zuko: `pip install 'diffrep[priors]'`, or prior.kind=mixture"
            ) from error
        self.flow = NSF(dim, transforms=transforms, hidden_features=(width, width))

    def fit(self, codes: Tensor) -> None:
        """codes (N, d) of about unit variance: 400 steps of Adam."""
        descend(self, lambda z: -self.log_prob(z), codes, steps=400, lr=3e-3)

    def sample(self, n: int, draws: Draws) -> CodeVector:
        return self.flow().transform.inv(draws.normal(n, self.dim))

    def log_prob(self, z: CodeVector) -> PerExample:
        return self.flow().log_prob(z)

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        return code.log_prob(z) - self.log_prob(z)
