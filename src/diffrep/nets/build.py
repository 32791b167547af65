"""Networks from their sections of the settings: a new network is a row here and a word in config.py."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from diffrep.config import DecoderSettings, EncoderSettings, chosen
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import Decoder, Generator, MLPDecoder, MLPGenerator, UNet
from diffrep.nets.encoders import ConvEncoder, Critic, Encoder, MLPEncoder, ViT, WideResNet
from diffrep.shapes import Shape

UNITS = 8  # units of a perceptron's layer for one of `width`: a layer of vectors is as wide as this many channels
TOKENS = 4  # numbers of a vision transformer's token for one of `width`


def encoder(settings: EncoderSettings, shape: Shape, time: bool = False) -> Encoder:
    """The network that reads an example of `shape`. time: it also reads a noise level."""
    e = settings
    depth = {} if e.depth is None else {"depth": e.depth}
    make: dict[str, Callable[[], Encoder]] = {
        "conv": lambda: ConvEncoder(shape, width=e.width, time=time, dropout=e.dropout),
        "wideresnet": lambda: WideResNet(shape, **depth, widen=e.widen, time=time, dropout=e.dropout),
        "vit": lambda: ViT(shape, patch=e.patch, width=TOKENS * e.width, **depth, time=time, dropout=e.dropout),
        "mlp": lambda: MLPEncoder(shape, width=UNITS * e.width, **depth, time=time, dropout=e.dropout),
    }
    return make[chosen(e.kind, "mlp" if len(shape) == 1 else "conv")]()


def decoder(settings: DecoderSettings, shape: Shape, code_dim: int, extra_channels: int) -> Decoder:
    """The network that removes noise from an example of `shape`; code_dim: 0 for one without a code."""
    d = settings
    until = d.code_until if code_dim else None
    conditioning = Conditioning(code_dim, until, d.fourier, extra_channels, d.condition_width)
    if chosen(d.kind, "mlp" if len(shape) == 1 else "unet") == "mlp":
        return MLPDecoder(shape, UNITS * d.width, d.blocks + 1, d.dropout, conditioning)
    attention = tuple(level for level, attends in enumerate(d.attention) if attends)
    drawn = code_dim > 0 and d.draw_code
    return UNet(shape, d.width, d.multipliers, d.blocks, attention, drawn, d.dropout, conditioning)


def generator(settings: DecoderSettings, shape: Shape, code_dim: int) -> nn.Module:
    """The network that decodes at once: a code (B, code_dim) -> (B, *shape)."""
    if len(shape) == 1:
        return MLPGenerator(shape, code_dim, width=UNITS * settings.width)
    return Generator(shape, code_dim, width=settings.width)


def critic(settings: DecoderSettings, shape: Shape) -> nn.Module:
    """The network that tells examples from denoised ones."""
    return Critic(shape, width=settings.width)


def head(inputs: int, outputs: int = 64) -> nn.Module:
    """The perceptron between a code and a loss between views; it is thrown away after training."""
    return nn.Sequential(nn.Linear(inputs, 2 * outputs), nn.SiLU(), nn.Linear(2 * outputs, outputs))
