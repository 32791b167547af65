"""Loss terms as functions of a `Noised` step."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffrep.denoising import terms
from diffrep.models.contrast import simclr
from diffrep.models.contrastive import compared
from diffrep.models.diffusion import Noised, Term
from diffrep.shapes import PerExample


def denoise(step: Noised) -> PerExample:
    return step.of_whole(terms.denoising(step.eps, step.prediction, step.weight))


def prior(step: Noised) -> PerExample:
    start = step.model.start(step.model.noise, step.z, step.kept == 0)
    return step.model.noise.prior_loss(step.x, start)


def rate(step: Noised) -> PerExample:
    code, z = step.coded()
    assert step.model.prior is not None, "a rate needs a prior"
    return step.model.prior.rate(code, z)


def l1(step: Noised) -> PerExample:
    return terms.l1(step.coded()[0].mean)


def mmd(step: Noised) -> PerExample:
    """MMD between the codes of the batch and N(0, I) (Zhao et al. 2019; Tolstikhin et al. 2018)."""
    _, z = step.coded()
    return terms.mmd(z, step.draws.normal(*z.shape))


def contrast_views(step: Noised) -> PerExample:
    """SimCLR's loss between the code of the view and that of a second view of x, through the head: nats."""
    model, (code, _) = step.model, step.coded()
    assert model.posterior is not None and model.view is not None and model.head is not None, "two views need a head"
    second = model.posterior(model.view(step.whole, step.draws))
    return compared(model.head, code.mean, second.mean, simclr)["contrast"]


def slice_score(step: Noised) -> PerExample:
    """Sliced score matching at noise level t, in units of the noise: sigma^2 (v' grad s v + 1/2 |s|^2)."""
    v = step.draws.normal(*step.x.shape)
    with sdpa_kernel(SDPBackend.MATH):  # the only implementation that can be differentiated twice
        nats = terms.sliced_score(lambda x_t: step.denoiser(x_t, step.t, step.z).score, step.x_t, v)
    return step.weight * step.prediction.sigma**2 * nats


def fool(step: Noised) -> PerExample:
    assert step.model.critic is not None, "there is no critic to fool"
    return terms.fool(step.model.critic(step.prediction.x).float())


def reconstruct(step: Noised) -> PerExample:
    x, zero = step.x, torch.zeros_like(step.t)
    alpha, sigma = step.model.noise.scales(zero)
    x_0 = step.model.noise.add(x, step.draws.normal(*x.shape), zero)
    return terms.data_end(x, x_0, alpha, sigma, step.model.bins)


def in_steps(steps: int) -> Term:
    """The diffusion loss of a chain of finite length, for times on its grid."""

    def term(step: Noised) -> PerExample:
        gamma_s = -step.model.noise.log_snr(step.t - 1 / steps)
        return terms.diffusion_in_steps(step.eps, step.prediction, -step.log_snr, gamma_s, steps)

    return term
