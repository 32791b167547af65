"""Losses that compare two views of the same examples: pure functions of their projections."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from diffrep.shapes import CodeVector, Terms


def nt_xent(a: CodeVector, b: CodeVector, temperature: float) -> Terms:
    """Normalised temperature-scaled cross entropy (SimCLR, Eq. 1), nats for each example (its two views' mean).

    a, b (B, d): projections of two views. Each of the 2 B is classified among the 2 B - 1 others by cosine; the other
    view is its class.
    """
    both = F.normalize(torch.cat([a, b]), dim=1)
    scores = (both @ both.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(both), device=a.device).roll(len(a))
    nats = F.cross_entropy(scores, partner, reduction="none")
    return {"contrast": nats.unflatten(0, (2, -1)).mean(0)}


simclr = partial(nt_xent, temperature=0.5)  # the best temperature on CIFAR-10 (SimCLR, Appendix B.9)


def vicreg(a: CodeVector, b: CodeVector, weights: tuple[float, float, float] = (25.0, 25.0, 1.0)) -> Terms:
    """Invariance, variance and covariance (VICReg, Eq. 6), weighted as there; (B,) each.

    a, b (B, d). The last two are of the batch as a whole: each example carries the same value.
    """
    invariance, variance, covariance = weights
    return {
        "invariance": invariance * ((a - b) ** 2).mean(1),
        "variance": variance * (_narrow(a) + _narrow(b)).expand(len(a)),
        "covariance": covariance * (_tangled(a) + _tangled(b)).expand(len(a)),
    }


def _narrow(z: CodeVector) -> Tensor:
    """Mean over features of max(0, 1 - standard deviation) (VICReg, Eq. 1 and 2)."""
    return F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean()


def _tangled(z: CodeVector) -> Tensor:
    """Sum of the squared covariances of different features, divided by d (VICReg, Eq. 3 and 4)."""
    centred = z - z.mean(0)
    squares = (centred.T @ centred / (len(z) - 1)) ** 2  # torch.cov reads a number back, which waits for the GPU
    return (squares.sum() - squares.diagonal().sum()) / z.shape[1]
