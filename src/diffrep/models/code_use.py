"""The information in a code, and the dependence of a decoder on it: its loss with the code of another example."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from diffrep.codes.posteriors import Code
from diffrep.denoising import terms
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.start import Start
from diffrep.shapes import CodeVector, Data, Time

ACTIVE = 0.01  # variance of a number's mean over examples above which it is active (Burda et al. 2016)
BANDS = ("coarse", "middle", "fine")  # thirds of the noise axis in log-SNR, from noise to data
MOST = 32  # examples at most, each denoised twice


class Health(TypedDict, total=False):
    """What a logged step says of the code; each name is written here once for those who read the log."""

    active_units: float
    code_variance: float
    rate_nats: float
    information_nats: float
    gap_nats: float
    gap_nats_coarse: float
    gap_nats_middle: float
    gap_nats_fine: float
    gap_nats_start: float


@dataclass(frozen=True)
class DecoderStep:
    """The input of the decoder at one training step, detached: x, eps, x_t (B, *shape), scales, log_snr, z (B, d), and
    the covariate (B, K) where there is one."""

    x: Data
    eps: Data
    x_t: Data
    alpha: Time
    sigma: Time
    log_snr: Time
    z: CodeVector
    covariate: Tensor | None = None


@torch.no_grad()
def code_health(means: CodeVector) -> dict[str, Tensor]:
    """How alive codes of these means (B, d) are: how many numbers are active, and the mean variance of a number."""
    variance = means.var(0)
    return {"active_units": (variance > ACTIVE).sum(), "code_variance": variance.mean()}


@torch.no_grad()
def told_apart(code: Code, z: CodeVector) -> Tensor:
    """Nats by which z (B, d), drawn from the codes of B examples, tells them apart; a lower bound of I(x; z), ().

    It is the mean of log q(z_i | x_i) - log mean_j q(z_i | x_j) (Poole et al. 2019, Eq. 12) and never exceeds log B;
    near log B, the code may hold more.
    """
    log_q = code.log_prob(z[:, None])  # (B, B): of z_i under the code of x_j
    return (log_q.diagonal() - torch.logsumexp(log_q, 1)).mean() + math.log(len(z))


@torch.no_grad()
def shuffle_gap(denoiser: Denoiser, start: Start, last: DecoderStep, most: int = MOST) -> dict[str, Tensor]:
    """gap_nats, and its share from each of `BANDS`: the diffusion loss at weight one with codes rolled by one example,
    minus that with their own; nats, on `most` examples spaced over the batch, in one pass without gradients. For a
    learned start, gap_nats_start is the same difference of the prior loss.

    Both losses have the same x_t. The gap is 0 in expectation where the decoder ignores the code. The value of a band
    is the mean over its examples times the width of its overlap with the range of log-SNRs of the step, so that only
    noise levels of the level of detail count; a band without examples is left out. The times of a batch lie on a grid,
    so neighbours have almost the same time. The first and the last example have not, so their pair is left out: a code
    of another time would be wrong for its noise level, not for its example.
    """
    some = slice(None, None, -(-len(last.z) // most))
    x, eps, x_t, alpha, sigma, log_snr, z = (
        value[some] for value in (last.x, last.eps, last.x_t, last.alpha, last.sigma, last.log_snr, last.z)
    )
    covariate = None if last.covariate is None else torch.cat([last.covariate[some]] * 2)
    network, training = denoiser.network, denoiser.network.training
    network.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # another batch size must not trigger a new compilation
            prediction = denoiser.given(covariate).at(
                torch.cat([x_t, x_t]),
                (torch.cat([alpha, alpha]), torch.cat([sigma, sigma])),
                torch.cat([log_snr, log_snr]),
                torch.cat([z, z.roll(1, 0)]),
            )
    finally:
        network.train(training)
    own, other = terms.denoising(torch.cat([eps, eps]), prediction, torch.ones_like(prediction.alpha)).chunk(2)
    high, low = denoiser.noise.log_snr(torch.tensor([0.0, 1.0], device=z.device))
    band = ((log_snr - low) / (high - low) * len(BANDS)).long().clamp(0, len(BANDS) - 1)
    near = (log_snr - log_snr.roll(1, 0)).abs() < (high - low) / 2
    edges = torch.lerp(low, high, torch.linspace(0, 1, len(BANDS) + 1, device=z.device))
    widths = edges.clamp(log_snr.min(), log_snr.max()).diff()
    gaps = {}
    for k, name in enumerate(BANDS):
        here = near & (band == k)
        if here.any():
            gaps[f"gap_nats_{name}"] = (other - own)[here].mean() * widths[k]
    if start.learned:
        own, other = (denoiser.noise.prior_loss(x, start(denoiser.noise, code)) for code in (z, z.roll(1, 0)))
        gaps["gap_nats_start"] = (other - own).mean()
    return {"gap_nats": torch.stack([*gaps.values()]).sum(), **gaps} if gaps else {}
