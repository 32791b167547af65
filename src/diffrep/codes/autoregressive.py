"""p(z) of categorical variables, each conditioned on those before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.codes.posteriors import Code, gumbel, largest
from diffrep.codes.priors import Prior
from diffrep.nets.blocks import damped
from diffrep.shapes import CodeVector, Draws, PerExample


class Autoregressive(Prior):
    """p(z) = prod_i p(z_i | z_1 ... z_{i-1}) for one-hot variables, by one masked hidden layer (Germain et al. 2015).

    Hidden block i reads the variables up to i, the scores of variable i read the blocks before i. It is trained with
    the codes; at first its variables are nearly uniform and independent. width: units of a block.
    """

    inner_mask: Tensor
    outer_mask: Tensor

    def __init__(self, variables: int, classes: int, width: int = 32):
        super().__init__()
        self.variables, self.classes = variables, classes
        self.inner = nn.Linear(variables * classes, variables * width)
        self.outer = nn.Linear(variables * width, variables * classes)
        damped(self.outer)
        order = torch.ones(variables, variables).tril()
        self.register_buffer("inner_mask", torch.kron(order, torch.ones(width, classes)), persistent=False)
        self.register_buffer("outer_mask", torch.kron(order.tril(-1), torch.ones(classes, width)), persistent=False)

    def fit(self, codes: Tensor) -> None:
        """Does nothing: training has fitted it."""

    def log_probabilities(self, z: CodeVector) -> CodeVector:
        """(B, d) log p of each class of each variable, given the variables before it in z."""
        hidden = F.silu(F.linear(z, self.inner_mask * self.inner.weight, self.inner.bias))
        scores = F.linear(hidden, self.outer_mask * self.outer.weight, self.outer.bias)
        return torch.log_softmax(scores.unflatten(-1, (-1, self.classes)), -1).flatten(-2)

    def sample(self, n: int, draws: Draws) -> CodeVector:
        noise = gumbel(draws.normal(n, self.variables * self.classes))
        z = torch.zeros_like(noise)
        with torch.no_grad():
            for i in range(self.variables):
                own = slice(i * self.classes, (i + 1) * self.classes)
                z[:, own] = largest(self.log_probabilities(z)[:, own] + noise[:, own], self.classes)
        return z

    def log_prob(self, z: CodeVector) -> PerExample:
        return (z * self.log_probabilities(z)).sum(-1)

    def rate(self, code: Code, z: CodeVector) -> PerExample:
        """sum q_i (log q_i - log p(. | z_<i)): exact for each variable, given the drawn values of those before it;
        unbiased, since the variables of q are independent."""
        q = code.mean
        return (torch.xlogy(q, q.clamp(min=1e-12)) - q * self.log_probabilities(z)).sum(-1)
