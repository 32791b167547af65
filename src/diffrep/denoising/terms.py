"""Loss terms: pure functions that return nats for each example; t, eps and all random numbers are arguments."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffrep.denoising.denoiser import Prediction
from diffrep.shapes import CodeVector, Data, PerExample, Time, expand, sum_features


def denoising(eps: Data, prediction: Prediction, weight: Tensor) -> PerExample:
    """Denoising score matching, 1/2 w(t) |eps - eps_hat|^2 (Vincent 2011; DRL, Eq. 5).

    With w = -d log_snr/dt it is the continuous diffusion loss 1/2 gamma'(t) |eps - eps_hat|^2 (VDM, Eq. 17).
    """
    return 0.5 * weight * sum_features((eps - prediction.eps) ** 2)


def diffusion_in_steps(eps: Data, prediction: Prediction, gamma_t: Time, gamma_s: Time, steps: int) -> PerExample:
    """Diffusion loss in T steps, T/2 expm1(gamma_t - gamma_s) |eps - eps_hat|^2, s = t - 1/T (VDM, Eq. 14)."""
    return 0.5 * steps * torch.expm1(gamma_t - gamma_s) * sum_features((eps - prediction.eps) ** 2)


def reconstruction(x: Data, x_0: Data, alpha: Time, sigma: Time, bins: int, reach: float = 6.0) -> PerExample:
    """-log p(x | x_0), p = softmax over the grey levels of -1/2 (alpha/sigma)^2 (x_0/alpha - x_k)^2 (VDM, Eq. 8).

    The sum runs over x's own grey level and those within `reach` standard deviations of the noise (and half a grey
    level) of the one nearest to x_0/alpha, so memory does not grow with `bins`. All others together have a probability
    of 2e-9 for reach=6, less than float32 resolves; the term is too low by that many nats for each number.
    """
    step = 2 / bins
    y = (x_0 / expand(alpha, x_0)).float()
    s = expand(sigma / alpha, x_0).float()
    half = int(min(bins, math.ceil(reach * float(s.detach().max()) / step) + 1))
    nearest = torch.round((y + 1) / step - 0.5).clamp(0, bins - 1)
    own = -0.5 * ((x - y) / s) ** 2
    total = own
    own_grey = torch.round((x + 1) / step - 0.5)
    for offset in range(-half, half + 1):
        grey = nearest + offset
        energy = -0.5 * ((2 * (grey + 0.5) / bins - 1 - y) / s) ** 2
        counted = (grey >= 0) & (grey < bins) & (grey != own_grey)
        total = torch.logaddexp(total, energy.masked_fill(~counted, -torch.inf))
    return sum_features(total - own)


def density(x: Data, x_0: Data, alpha: Time, sigma: Time) -> PerExample:
    """-log N(x; x_0/alpha, (sigma/alpha)^2): the reconstruction of continuous data, a density in units of x."""
    s = expand(sigma / alpha, x)
    return sum_features(0.5 * ((x - x_0 / expand(alpha, x)) / s) ** 2 + s.log() + 0.5 * math.log(2 * math.pi))


def data_end(x: Data, x_0: Data, alpha: Time, sigma: Time, bins: int | None) -> PerExample:
    """-log p(x | x_0): of grey levels where there are `bins`, else of continuous data."""
    return density(x, x_0, alpha, sigma) if bins is None else reconstruction(x, x_0, alpha, sigma, bins)


def sliced_score(score: Callable[[Data], Data], x_t: Data, v: Data) -> PerExample:
    """Sliced score matching with variance reduction, v' grad s(x) v + 1/2 |s(x)|^2 (Song et al. 2019, Eq. 8)."""
    x_t = x_t.detach().requires_grad_()
    with torch.enable_grad():
        s = score(x_t)
        (grad,) = torch.autograd.grad((s * v).sum(), x_t, create_graph=True)
    return sum_features(v * grad) + 0.5 * sum_features(s**2)


def l1(z: CodeVector) -> PerExample:
    """|z|_1 of a deterministic code (DRL, Section 4)."""
    return z.abs().sum(-1)


def mmd(z: CodeVector, prior: CodeVector) -> PerExample:
    """Squared maximum mean discrepancy between the batch's codes and the prior's, inverse multiquadratic kernel.

    The unbiased estimate (Gretton et al. 2012, Eq. 3), times the batch, so that its mean is the estimate: (B,).
    """
    n, scale = len(z), 2.0 * z.shape[1]
    if n < 2:
        return torch.zeros(n, device=z.device)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return scale / (scale + torch.cdist(a, b) ** 2)

    own = kernel(z, z).fill_diagonal_(0).sum(1) + kernel(prior, prior).fill_diagonal_(0).sum(1)
    return own / (n - 1) - 2 * kernel(z, prior).mean(1)


def fool(critic_of_fake: PerExample) -> PerExample:
    """Least-squares GAN, the denoiser's side: 1/2 (D(x_hat) - 1)^2 (Mao et al. 2017; ASM, Section 4)."""
    return 0.5 * (critic_of_fake - 1) ** 2


def judge(critic_of_real: PerExample, critic_of_fake: PerExample) -> PerExample:
    """Least-squares GAN, the critic's side: 1/2 (D(x) - 1)^2 + 1/2 D(x_hat)^2."""
    return 0.5 * (critic_of_real - 1) ** 2 + 0.5 * critic_of_fake**2
