"""The inputs of a decoder besides x_t."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conditioning:
    """The inputs of a decoder besides x_t: always the noise level, and those named here.

    code_dim: numbers of a code z, 0 for a decoder without a code. code_until: a learned null code replaces every code
    above this log-SNR; over the unit of log-SNR below it the input goes linearly from the code to the null code. None:
    the code is used at every log-SNR. fourier: exponents n of the sines and cosines of 2^n pi x_t that are added to the
    input. extra_channels: of an additional input that is concatenated to x_t. width: of each of the two vectors, for
    the noise level and for the code, that modulate every block; None: it follows from the width of the network.
    drawn: a `Generator` also turns the code into feature maps, which a `UNet` adds to the output of its first
    convolution: modulation alone is the same at every position. covariates: values of a covariate that the decoder gets
    beside the noise level, as the class of a class-conditional decoder (Dhariwal and Nichol 2021).
    """

    code_dim: int = 0
    code_until: float | None = None
    fourier: tuple[int, ...] = ()
    extra_channels: int = 0
    width: int | None = None
    drawn: bool = False
    covariates: int = 0


NOISE_LEVEL = Conditioning()  # the noise level alone
