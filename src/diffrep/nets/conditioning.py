"""What a decoder knows beside x_t."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conditioning:
    """What a decoder knows beside x_t: the noise level always, and what is named here.

    code_dim: numbers of a code z, 0 for a decoder without a code. code_until: the log-SNR from which on, towards the
    data, a learned null code stands in for every code; over the unit of log-SNR below it the code fades. None: the
    code is seen everywhere. fourier: exponents n of the sines and cosines of 2^n pi x_t that the network sees beside
    x_t. extra_channels: of an additional input that is concatenated to x_t. width: numbers of each of the two vectors,
    of the noise level and of the code, that modulate every block; None: by the width of the network.
    """

    code_dim: int = 0
    code_until: float | None = None
    fourier: tuple[int, ...] = ()
    extra_channels: int = 0
    width: int | None = None


NOISE_LEVEL = Conditioning()  # the noise level alone
