"""The probability flow: the deterministic path between an example and its noise, and the likelihood along it.

With y = x_t / alpha and r = sigma / alpha the flow ODE (Song et al. 2021, Eq. 13) reads dy = eps_hat dr.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from diffrep.denoising.noise import Noise
from diffrep.denoising.samplers import Denoise, Level, heun, heun_from, levels, sample
from diffrep.denoising.spacing import times
from diffrep.shapes import Data, Draws, PerExample, expand, sum_features


def flow(denoise: Denoise, noise: Noise, x: Data, times: Tensor) -> Data:
    """Follow the flow from x at times[0] to times[-1], in either direction, by Heun's method; like x."""
    return sample(denoise, noise, x, heun, times, last=False)


def invert(denoise: Denoise, noise: Noise, x_0: Data, steps: int) -> Data:
    """x_0, an example at the lowest noise level -> the x_1 from which the flow leads back to it; like x_0."""
    return flow(denoise, noise, x_0, times(noise, steps).flip(0))


def flow_log_likelihood(
    denoise: Denoise,
    noise: Noise,
    x_0: Data,
    steps: int,
    draws: Draws,
    probes: int = 1,
    end: tuple[Tensor, Tensor] | None = None,
) -> PerExample:
    """log p_0(x_0) in nats, of the density that the flow pushes forward from N(0, start_scale^2 I); (B,).

    end: mean and standard deviation of another diagonal Gaussian to push forward. The divergence is Hutchinson's
    estimate with `probes` Rademacher vectors (Song et al. 2021, Eq. 40), the same along the whole path; unbiased. Steps
    are equal in log-SNR: Heun's method for the path, the trapezoidal rule for the divergence in log r, which goes
    smoothly from 0 to D. `denoise` must be differentiable in x_t.
    """
    signs = 1 - 2.0 * (draws.uniform(len(x_0), probes, *x_0.shape[1:]) < 0.5)
    vectors = signs.to(x_0).unbind(1)
    path = levels(noise, times(noise, steps).flip(0))
    mean, std = (0.0, noise.start_scale()) if end is None else end

    x = x_0.detach()
    eps, divergence = _eps_and_divergence(denoise, x, path[0], vectors)
    total = torch.zeros_like(divergence)
    for t, s in pairwise(path):
        with torch.no_grad():
            x = heun_from(eps, denoise, x, t, s)
        before = divergence
        eps, divergence = _eps_and_divergence(denoise, x, s, vectors)
        total = total + (t.log_snr - s.log_snr) / 2 * (before + divergence) / 2

    dims = math.prod(x_0.shape[1:])
    at_1 = sum_features(torch.distributions.Normal(mean, std, validate_args=False).log_prob(x)).detach()
    return at_1 + total + dims * (path[-1].log_alpha - path[0].log_alpha)


def dequantised_log_likelihood(
    denoise: Denoise,
    noise: Noise,
    x: Data,
    steps: int,
    draws: Draws,
    probes: int = 1,
    bins: int = 256,
    end: tuple[Tensor, Tensor] | None = None,
) -> PerExample:
    """A lower bound on log P(x) in nats for data of `bins` grey levels k at 2 (k + 1/2) / bins - 1 in [-1, 1]; (B,).

    Uniform dequantisation (Theis et al. 2016): x + u with u uniform over the width 2 / bins of a grey level; by
    Jensen's inequality E_u log p(x + u) + D log(2 / bins) <= log P(x), where p is the density of x_0 / alpha_0. It is a
    bound for every denoiser, but a loose one where the denoiser was trained on grey levels without u and the lowest
    noise level tells them apart: then p has peaks at the grey levels and x + u lies between them.
    """
    u = (2 * draws.uniform(*x.shape).to(x) - 1) / bins
    alpha_0 = noise.scales(x.new_zeros(len(x)))[0].detach()
    log_p = flow_log_likelihood(denoise, noise, expand(alpha_0, x) * (x + u), steps, draws, probes, end)
    return log_p + math.prod(x.shape[1:]) * (alpha_0.log() + math.log(2 / bins))


def _eps_and_divergence(denoise: Denoise, x: Data, level: Level, vectors: tuple[Data, ...]) -> tuple[Data, PerExample]:
    """eps_hat, and the mean over v of v' (sigma d eps_hat / dx) v: the divergence of dy / d log r, as dx = alpha dy."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        eps = level.ask(denoise, x).eps
        sums = [
            sum_features(torch.autograd.grad((eps * v).sum(), x, retain_graph=i + 1 < len(vectors))[0] * v)
            for i, v in enumerate(vectors)
        ]
    return eps.detach(), level.sigma * torch.stack(sums).mean(0)
