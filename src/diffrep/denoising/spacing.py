"""The times of a sampler: falling noise levels, evenly spaced in one of several measures of noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffrep.denoising.noise import Noise
from diffrep.errors import UserError, unknown

RHO = 7.0  # of `edm` (Karras et al. 2022, Table 1)
Spacing = Callable[[Noise, Tensor], Tensor]  # times (K,), even from the first to the last -> between the same two ends


def in_time(noise: Noise, even: Tensor) -> Tensor:
    """Even in t."""
    return even


def in_log_snr(noise: Noise, even: Tensor) -> Tensor:
    """Even in log-SNR (Lu et al. 2022, Section 3)."""
    first, last = noise.log_snr(even[:: len(even) - 1])
    return noise.time(torch.lerp(first, last, 1 - even / even[0]))


def edm(noise: Noise, even: Tensor) -> Tensor:
    """Even in (sigma / alpha)^(1 / 7) (Karras et al. 2022, Eq. 5): shorter steps at low noise than at high noise."""
    first, last = torch.exp(-noise.log_snr(even[:: len(even) - 1]) / (2 * RHO))
    return noise.time(-2 * RHO * torch.lerp(first, last, 1 - even / even[0]).log())


SPACINGS: dict[str, Spacing] = {"log-snr": in_log_snr, "time": in_time, "edm": edm}


@torch.no_grad()
def times(noise: Noise, steps: int, start: float = 1.0, spacing: str = "log-snr") -> Tensor:
    """The steps + 1 times of a sampler, falling from `start` to 0; (steps + 1,). spacing: a name in `SPACINGS`."""
    if steps < 1:
        raise UserError(f"sampling expects at least one step, got {steps}. Pass --steps 1 or more.")
    if not 0 < start <= 1:
        raise UserError(f"sampling starts at a time in (0, 1], got {start}. Use 1 to start from pure noise.")
    spaced = spacing_named(spacing)
    scale = noise.start_scale().detach()
    even = torch.linspace(start, 0, steps + 1, device=scale.device, dtype=scale.dtype)
    return torch.cat([even[:1], spaced(noise, even)[1:-1], even[-1:]])


def spacing_named(name: str) -> Spacing:
    """The spacing of that name; UserError where there is none."""
    if name not in SPACINGS:
        raise unknown("spacing", name, SPACINGS)
    return SPACINGS[name]
