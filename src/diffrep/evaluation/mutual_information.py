"""Mutual information of examples and their codes, between two bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from diffrep.codes.posteriors import Code
from diffrep.errors import UserError
from diffrep.shapes import Draws, PerExample


@dataclass(frozen=True)
class Information:
    """E[lower] <= I(x; z) <= E[upper], each (N,) nats, one for each example; the mean over examples is the estimate.

    lower never exceeds log N for any example: larger values need more examples. upper is loose where the codes of
    different examples hardly overlap; the mean rate is an upper bound too, since I = rate - KL(q(z) || p(z)).
    """

    lower: PerExample
    upper: PerExample

    def gap(self, rates: PerExample) -> tuple[PerExample, PerExample]:
        """Lower and upper bound of KL(q(z) || p(z)) = rate - I(x; z), (N,) nats each; rates (N,) of the same examples.

        The lower bound follows from the upper bound of I, and may be negative where that is loose.
        """
        return rates - self.upper, rates - self.lower


def mutual_information(code: Code, draws: Draws, codes_per_example: int = 1) -> Information:
    """I(x; z) from the code of N examples (mean and spread (N, d)), drawn from `codes_per_example` times.

    log q(z | x_i) - log mean_j q(z | x_j), the mean taken over all examples for the lower bound and over all but i for
    the upper (Poole et al. 2019, Eqs. 11 and 12, with the true density as critic; Jensen's inequality for the upper).
    The noise of the inner mean vanishes to first order, so the standard deviation over examples gives the standard
    error. O(N^2 d). UserError: fewer than two examples, or a code without spread, whose I(x; z) is not finite.
    """
    if code.spread is None:
        raise UserError(
            "a deterministic code has no finite I(x; z); train a method with a random code, such as vae-vdm."
        )
    n = len(code.mean)
    if n < 2:
        raise UserError(f"mutual information compares examples: expected at least two, got {n}; give more.")
    code = replace(code, mean=code.mean.double().cpu(), spread=code.spread.double().cpu())
    bounds = torch.zeros(n, 2, dtype=torch.float64)
    for _ in range(codes_per_example):
        z = code.sample(draws.normal(*code.mean.shape).double().cpu())
        for i in range(n):
            log_q = code.log_prob(z[i].expand_as(z))  # (N,) log q(z_i | x_j) for all j
            own, everyone = log_q[i].clone(), torch.logsumexp(log_q, 0) - math.log(n)
            log_q[i] = -torch.inf
            others = torch.logsumexp(log_q, 0) - math.log(n - 1)
            bounds[i] += torch.stack([own - everyone, own - others]) / codes_per_example
    return Information(bounds[:, 0], bounds[:, 1])
