"""Encoders: x -> features, the input of a code or a critic."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.errors import UserError
from diffrep.nets.blocks import (
    Attention,
    Conditions,
    DenseBlock,
    Modulation,
    Padding,
    ResidualBlock,
    convolution,
    dimensions,
    group_norm,
    halvings,
    patches,
)
from diffrep.nets.embeddings import NoiseLevel
from diffrep.shapes import CodeVector, Data, PerExample, Shape, Time


class Encoder(nn.Module, ABC):
    """A network x (B, *shape) -> features (B, features); with time = True it also reads the log-SNR (B,) of x.

    An encoder defines `body`. Normalisation is per example (GroupNorm, LayerNorm), so the features of an example do not
    depend on its batch.
    """

    def __init__(self, shape: Shape, features: int, condition_width: int, time: bool):
        super().__init__()
        self.shape, self.features, self.time = tuple(shape), features, time
        self.level = NoiseLevel(condition_width) if time else None

    @abstractmethod
    def body(self, x: Data, conditions: Conditions) -> CodeVector:
        """x and the vectors that modulate the blocks (one of the noise level, or none) -> (B, features)."""

    def forward(self, x: Data, log_snr: Time | None = None) -> CodeVector:
        """(B, *shape) -> (B, features). UserError for another shape, for a missing log_snr, or for one without time."""
        if x.shape[1:] != self.shape:
            raise UserError(f"expected data of shape (B, *{self.shape}), got {tuple(x.shape)}")
        if (log_snr is not None) != self.time:
            raise UserError(
                "expected a log_snr: the encoder was built with time = True, got None"
                if self.time
                else "expected no log_snr: the encoder was built with time = False; build it with time = True to use it"
            )
        return self.body(x, () if self.level is None or log_snr is None else (self.level(log_snr),))


class ConvEncoder(Encoder):
    """A small convolutional network for 1-3 spatial axes: strided residual blocks down to at most 4 positions an axis.

    The channels double from `width` to 4 width. The features are the last map, flattened, so they keep
    positions.
    """

    def __init__(self, shape: Shape, width: int = 32, time: bool = False, dropout: float = 0.0):
        dims, strides = dimensions(shape), halvings(shape[1:])
        channels = [width, *(width * min(2**i, 4) for i in range(strides))]
        positions = math.prod(-(-n // 2**strides) for n in shape[1:])
        super().__init__(shape, channels[-1] * positions, 4 * width, time)
        self.stem = convolution(dims, shape[0], width)
        self.blocks = nn.ModuleList(
            ResidualBlock(dims, inputs, outputs, int(time), 4 * width, stride=2, dropout=dropout)
            for inputs, outputs in pairwise(channels)
        )
        self.last = ResidualBlock(dims, channels[-1], channels[-1], int(time), 4 * width, dropout=dropout)
        self.norm = group_norm(channels[-1])

    def body(self, x: Data, conditions: Conditions) -> CodeVector:
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, conditions)
        return F.silu(self.norm(self.last(h, conditions))).flatten(1)


class WideResNet(Encoder):
    """WideResNet-depth-widen (Zagoruyko & Komodakis 2016) for (C, H, W); 28-2 is the encoder of DRL.

    Three stages of (depth - 4) / 6 blocks with 16, 32, 64 times `widen` channels, the mean over positions at the end.
    Unlike the paper it has SiLU for ReLU and GroupNorm for BatchNorm, so that results depend neither on the batch size
    nor on the number of processes.
    """

    def __init__(self, shape: Shape, depth: int = 28, widen: int = 2, time: bool = False, dropout: float = 0.0):
        if len(shape) != 3:
            raise UserError(f"expected images of shape (C, H, W) for a WideResNet, got {tuple(shape)}; use ConvEncoder")
        if depth < 10 or (depth - 4) % 6:
            raise UserError(f"expected a WideResNet depth of 6 n + 4 (10, 16, 22, 28, ...), got {depth}")
        width = 16 * widen
        super().__init__(shape, 4 * width, 4 * width, time)
        self.stem = convolution(2, shape[0], 16)
        self.blocks = nn.ModuleList()
        inputs = 16
        for stage in range(3):
            for i in range((depth - 4) // 6):
                stride = 2 if stage and i == 0 else 1
                self.blocks.append(
                    ResidualBlock(2, inputs, width * 2**stage, int(time), 4 * width, stride=stride, dropout=dropout)
                )
                inputs = width * 2**stage
        self.norm = group_norm(inputs)

    def body(self, x: Data, conditions: Conditions) -> CodeVector:
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, conditions)
        return F.silu(self.norm(h)).flatten(2).mean(2)


class TransformerBlock(nn.Module):
    """Pre-norm transformer block on tokens (B, N, width), both of its branches modulated by the conditions.

    dropout: at the end of each branch.
    """

    def __init__(self, width: int, heads: int, sources: int, condition_width: int, dropout: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=sources == 0)
        self.film1 = Modulation(width, sources, condition_width, axis=2)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=sources == 0)
        self.film2 = Modulation(width, sources, condition_width, axis=2)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, conditions: Conditions) -> Tensor:
        tokens = tokens + self.dropout(self.attention(self.film1(self.norm1(tokens), conditions)))
        return tokens + self.dropout(self.perceptron(self.film2(self.norm2(tokens), conditions)))


class ViT(Encoder):
    """Vision transformer (Dosovitskiy et al. 2021) for 1-3 spatial axes: patches, learned positions, mean of tokens.

    patch: edge of a patch; sizes that it does not divide are padded. heads must divide width.
    """

    def __init__(
        self,
        shape: Shape,
        patch: int = 4,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        time: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__(shape, width, width, time)
        dims = dimensions(shape)
        self.padding = Padding(shape[1:], patch)
        self.patches = patches(dims, shape[0], width, patch)
        count = math.prod(n // patch for n in self.padding.padded)
        self.position = nn.Parameter(0.02 * torch.randn(1, count, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, int(time), width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def body(self, x: Data, conditions: Conditions) -> CodeVector:
        tokens = self.patches(self.padding.pad(x)).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            tokens = block(tokens, conditions)
        return self.norm(tokens).mean(1)


class MLPEncoder(Encoder):
    """A perceptron with `depth` residual blocks of `width` units, for vectors; other shapes are flattened."""

    def __init__(self, shape: Shape, width: int = 256, depth: int = 4, time: bool = False, dropout: float = 0.0):
        super().__init__(shape, width, width, time)
        self.stem = nn.Linear(math.prod(shape), width)
        self.blocks = nn.ModuleList(DenseBlock(width, int(time), width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def body(self, x: Data, conditions: Conditions) -> CodeVector:
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, conditions)
        return F.silu(self.norm(h))


class Critic(nn.Module):
    """x (B, *shape) -> (B,) score, high for real examples (adversarial score matching); images, signals or vectors."""

    def __init__(self, shape: Shape, width: int = 32):
        super().__init__()
        self.encoder = MLPEncoder(shape, 4 * width, depth=3) if len(shape) == 1 else ConvEncoder(shape, width)
        self.score = nn.Linear(self.encoder.features, 1)

    def forward(self, x: Data) -> PerExample:
        return self.score(self.encoder(x))[:, 0]
