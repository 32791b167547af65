"""What a code tells apart, and how much a decoder depends on it: what it loses by the code of another example."""

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
LOOKED = 32  # examples at most, each seen twice


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
class Seen:
    """What the decoder was shown at one step, without its graph: x, eps, x_t (B, *shape), scales, log_snr, z (B, d)."""

    x: Data
    eps: Data
    x_t: Data
    alpha: Time
    sigma: Time
    log_snr: Time
    z: CodeVector


@torch.no_grad()
def code_health(means: CodeVector) -> dict[str, Tensor]:
    """How alive codes of these means (B, d) are: how many numbers are active, and the mean variance of a number."""
    variance = means.var(0)
    return {"active_units": (variance > ACTIVE).sum(), "code_variance": variance.mean()}


@torch.no_grad()
def told_apart(code: Code, z: CodeVector) -> Tensor:
    """Nats by which z (B, d), drawn from the codes of B examples, tells these apart; a lower bound of I(x; z), ().

    The mean of log q(z_i | x_i) - log mean_j q(z_i | x_j) (Poole et al. 2019, Eq. 12), which never exceeds log B: near
    that, the code may say more.
    """
    log_q = code.log_prob(z[:, None])  # (B, B): of z_i under the code of x_j
    return (log_q.diagonal() - torch.logsumexp(log_q, 1)).mean() + math.log(len(z))


@torch.no_grad()
def shuffle_gap(denoiser: Denoiser, start: Start, seen: Seen, most: int = LOOKED) -> dict[str, Tensor]:
    """gap_nats, and its share from each of `BANDS`: the diffusion loss at weight one with codes rolled by one example,
    minus that with their own; nats, on `most` examples spread over the batch, in one pass without gradients. The share
    of a start that is learned, the prior loss in place of the diffusion loss, is gap_nats_start.

    Both see the same x_t. 0 in expectation where the decoder ignores the code. A band is its mean over the examples
    times the part of it that lies between the extreme log-SNRs of the step, so that a level of detail answers for what
    it looks at; one that no example fell into is left out. The times of a batch lie on a grid, so that neighbours have
    almost the same time. The first and the last example have not, and their pair is left out: the code of another
    noise level would be wrong for its level and not for its example.
    """
    some = slice(None, None, -(-len(seen.z) // most))
    x, eps, x_t, alpha, sigma, log_snr, z = (
        part[some] for part in (seen.x, seen.eps, seen.x_t, seen.alpha, seen.sigma, seen.log_snr, seen.z)
    )
    network, training = denoiser.network, denoiser.network.training
    network.eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # another batch size must not make the compiled graph anew
            said = denoiser.at(
                torch.cat([x_t, x_t]),
                (torch.cat([alpha, alpha]), torch.cat([sigma, sigma])),
                torch.cat([log_snr, log_snr]),
                torch.cat([z, z.roll(1, 0)]),
            )
    finally:
        network.train(training)
    own, other = terms.denoising(torch.cat([eps, eps]), said, torch.ones_like(said.alpha)).chunk(2)
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
