"""Networks from their sections of the settings; `kinds.py` names the encoders."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from diffrep.config import DecoderSettings, EncoderSettings, chosen
from diffrep.kinds import ENCODERS, made
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import Decoder, Generator, MLPDecoder, MLPGenerator, UNet
from diffrep.nets.encoders import Critic, Encoder
from diffrep.shapes import Shape

UNITS = 8  # units of a layer of a perceptron for each channel of `width`
WIDER = {"mlp": UNITS, "vit": 4}  # units of a layer, or numbers of a token, for one of `encoder.width`


def encoder(settings: EncoderSettings, shape: Shape, time: bool = False, **fixed: float) -> Encoder:
    """The network that reads an example of `shape`. time: it also reads a noise level. fixed: in place of settings."""
    name = chosen(settings.kind, "mlp" if len(shape) == 1 else "conv")
    wider = {"width": WIDER[name] * settings.width} if name in WIDER else {}
    return made(ENCODERS[name], settings, shape, time=time, **wider, **fixed)


def decoder(
    settings: DecoderSettings, shape: Shape, code_dim: int, extra_channels: int, patch: int = 1, covariates: int = 0
) -> Decoder:
    """The network that removes noise from an example of `shape`; code_dim: 0 for one without a code."""
    d = settings
    until = d.code_until if code_dim else None
    conditioning = Conditioning(code_dim, until, d.fourier, extra_channels, d.condition_width, covariates=covariates)
    if chosen(d.kind, "mlp" if len(shape) == 1 else "unet") == "mlp":
        return MLPDecoder(shape, UNITS * d.width, d.blocks + 1, d.dropout, conditioning)
    attention = tuple(stage for stage, attends in enumerate(d.attention) if attends)
    drawn = replace(conditioning, drawn=code_dim > 0 and d.draw_code)
    return UNet(shape, d.width, d.multipliers, d.blocks, attention, d.dropout, drawn, patch)


def generator(settings: DecoderSettings, shape: Shape, code_dim: int) -> nn.Module:
    """The network that decodes at once: a code (B, code_dim) -> (B, *shape)."""
    if len(shape) == 1:
        return MLPGenerator(shape, code_dim, width=UNITS * settings.width)
    return Generator(shape, code_dim, width=settings.width)


def critic(settings: DecoderSettings, shape: Shape) -> nn.Module:
    """The network that distinguishes examples from denoised ones."""
    return Critic(shape, width=settings.width)


def head(inputs: int, outputs: int = 64) -> nn.Module:
    """The perceptron between the code and a loss that compares views; it is not used after training."""
    return nn.Sequential(nn.Linear(inputs, 2 * outputs), nn.SiLU(), nn.Linear(2 * outputs, outputs))
