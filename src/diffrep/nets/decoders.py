"""Decoders: (x_t, log_snr, z) -> like x_t."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.errors import UserError
from diffrep.nets.blocks import (
    Conditions,
    DenseBlock,
    Padding,
    ResidualBlock,
    SpatialAttention,
    convolution,
    damped,
    depth_to_space,
    dimensions,
    group_norm,
    halvings,
    space_to_depth,
    upsampled,
)
from diffrep.nets.conditioning import NOISE_LEVEL, Conditioning
from diffrep.nets.embeddings import Fourier, NoiseLevel
from diffrep.shapes import CodeVector, Data, FeatureMap, Shape, Time


class Decoder(nn.Module, ABC):
    """A network that denoises: x_t (B, *shape), its log-SNR (B,) and a code z (B, code_dim) -> like x_t.

    A decoder defines `body`; this class turns noise level and code into two vectors that modulate every block of the
    body, and owns the learned null code that replaces a missing code. width: of these vectors where
    `conditioning.width` is None.
    """

    def __init__(self, shape: Shape, width: int, conditioning: Conditioning):
        super().__init__()
        c = conditioning
        self.shape, self.code_dim, self.extra_channels = tuple(shape), c.code_dim, c.extra_channels
        self.code_until = c.code_until
        self.fourier = Fourier(c.fourier)
        self.inputs = self.fourier.channels(shape[0]) + c.extra_channels
        self.condition_width = c.width or width
        self.sources = 2 if c.code_dim else 1
        self.level = NoiseLevel(self.condition_width)
        self.covariate = nn.Linear(c.covariates, self.condition_width, bias=False) if c.covariates else None
        if c.code_dim:
            self.null = nn.Parameter(torch.zeros(c.code_dim))
            self.code = nn.Sequential(nn.Linear(c.code_dim, self.condition_width), nn.SiLU())

    @abstractmethod
    def body(self, h: FeatureMap, conditions: Conditions, z: CodeVector | None) -> Data:
        """The input (B, inputs, *spatial), the vectors that modulate the blocks, and the code -> like x_t."""

    def forward(
        self,
        x_t: Data,
        log_snr: Time,
        z: CodeVector | None = None,
        extra: FeatureMap | None = None,
        drop: Tensor | None = None,
        covariate: Tensor | None = None,
    ) -> Data:
        """The network's output, like x_t. z = None: the null code for all; drop (B,), bool: the null code where True.

        covariate (B, K): 1 at the value that an example has. ValueError where x_t, z, extra or drop do not have the
        shapes that the network was built for.
        """
        self._check(x_t, z, extra, drop)
        h = self.fourier(x_t)
        if extra is not None:
            h = torch.cat([h, extra], dim=1)
        noise = self.level(log_snr)
        if self.covariate is not None and covariate is not None:
            noise = noise + self.covariate(covariate)
        if not self.code_dim:
            return self.body(h, (noise,), None)
        z = self.null.expand(len(x_t), -1) if z is None else z
        z = z if drop is None else torch.where(drop[:, None], self.null, z)
        if self.code_until is not None:
            z = torch.lerp(self.null.expand_as(z), z, (self.code_until - log_snr).clamp(0, 1).to(z)[:, None])
        return self.body(h, (noise, self.code(z)), z)

    def _check(self, x_t: Data, z: CodeVector | None, extra: FeatureMap | None, drop: Tensor | None) -> None:
        if x_t.shape[1:] != self.shape:
            raise UserError(f"expected data of shape (B, *{self.shape}), got {tuple(x_t.shape)}")
        if not self.code_dim and (z is not None or drop is not None):
            raise UserError("expected no code: the decoder was built with code_dim = 0, got z or drop")
        if z is not None and z.shape != (len(x_t), self.code_dim):
            raise UserError(f"expected a code of shape {(len(x_t), self.code_dim)}, got {tuple(z.shape)}")
        if drop is not None and drop.shape != x_t.shape[:1]:
            raise UserError(f"expected a mask drop of shape {(len(x_t),)}, got {tuple(drop.shape)}")
        wanted = (len(x_t), self.extra_channels, *self.shape[1:]) if self.extra_channels else None
        got = None if extra is None else tuple(extra.shape)
        if wanted != got:
            raise UserError(f"expected an extra input of shape {wanted}, got {got}")


class UNet(Decoder):
    """U-Net (Ronneberger et al. 2015; Ho et al. 2020) for (C, L), (C, H, W) and (C, D, H, W) of any size.

    Stage l works at 1 / 2^l of the resolution with width * multipliers[l] channels and has `blocks` residual blocks
    on the way down and as many on the way up; two more stand in the middle. multipliers = (1,) keeps the full
    resolution throughout (VDM, Appendix B). Skip connections are sums: concatenation took 15 to 40 % longer.

    attention: stages (0 is the finest) with one self-attention after their blocks on the way down; sliced score
    matching differentiates twice, which fused attention cannot. dropout: in each block. patch: the side of the patches
    of the input that become channels before the first convolution and pixels again after the last (Hoogeboom et al.
    2023, Section 2.4): each stage then works at 1 / patch of its resolution. conditioning: a width of None is 4 width.
    """

    def __init__(
        self,
        shape: Shape,
        width: int = 16,
        multipliers: tuple[int, ...] = (1, 2, 4),
        blocks: int = 1,
        attention: tuple[int, ...] = (),
        dropout: float = 0.0,
        conditioning: Conditioning = NOISE_LEVEL,
        patch: int = 1,
    ):
        super().__init__(shape, 4 * width, conditioning)
        dims, stages = dimensions(shape), len(multipliers)
        if blocks < 1:
            raise UserError(f"expected at least one block a stage, got {blocks}")
        if conditioning.drawn and not self.code_dim:
            raise UserError("expected a code for drawn = True, got code_dim = 0; set code_dim")
        if not set(attention) <= set(range(stages)):
            raise UserError(f"expected attention at stages among 0 to {stages - 1}, got {attention}")
        channels = [width * m for m in multipliers]
        self.patch, self.padding = patch, Padding(shape[1:], patch * 2 ** (stages - 1))

        def block(inputs: int, outputs: int, stride: int = 1) -> ResidualBlock:
            return ResidualBlock(
                dims, inputs, outputs, self.sources, self.condition_width, stride=stride, dropout=dropout
            )

        def attend(stage: int) -> nn.Module:
            return SpatialAttention(channels[stage]) if stage in attention else nn.Identity()

        def fall(stage: int) -> nn.ModuleList:
            first = block(channels[stage - 1], channels[stage], stride=2) if stage else block(channels[0], channels[0])
            return nn.ModuleList([first, *(block(channels[stage], channels[stage]) for _ in range(blocks - 1))])

        def rise(stage: int) -> nn.ModuleList:
            return nn.ModuleList(block(channels[stage], channels[stage]) for _ in range(blocks))

        self.stem = convolution(dims, patch**dims * self.inputs, channels[0])
        self.down = nn.ModuleList(fall(stage) for stage in range(stages))
        self.attend = nn.ModuleList(attend(stage) for stage in range(stages))
        self.middle = nn.ModuleList(block(channels[-1], channels[-1]) for _ in range(2))
        self.up = nn.ModuleList(rise(stage) for stage in reversed(range(stages)))
        self.narrow = nn.ModuleList(convolution(dims, low, high, kernel=1) for high, low in pairwise(channels))[::-1]
        self.norm = group_norm(channels[0])
        self.out = damped(convolution(dims, channels[0], patch**dims * shape[0]))
        drawn = (channels[0], *(n // patch for n in self.padding.padded))
        self.drawn = Generator(drawn, self.code_dim, max(1, width // 2)) if conditioning.drawn else None

    def body(self, h: FeatureMap, conditions: Conditions, z: CodeVector | None) -> Data:
        h = self.stem(space_to_depth(self.padding.pad(h), self.patch))
        h = h if self.drawn is None else h + self.drawn(z)
        skips: list[FeatureMap] = []
        for row, attend in zip(self.down, self.attend, strict=True):
            for block in row.children():
                h = block(h, conditions)
                skips.append(h)
            h = attend(h)
        for block in self.middle:
            h = block(h, conditions)
        for i, row in enumerate(self.up):  # coarse to fine
            h = upsampled(self.narrow[i - 1](h)) if i else h
            for block in row.children():
                h = block(h + skips.pop(), conditions)
        return self.padding.crop(depth_to_space(self.out(F.silu(self.norm(h))), self.patch))


class MLPDecoder(Decoder):
    """A perceptron with `blocks` residual blocks of `width` units, for vectors (F,); other shapes are flattened.

    conditioning: its width is `width` where it leaves that open; the channels of a vector are its F numbers.
    """

    def __init__(
        self,
        shape: Shape,
        width: int = 256,
        blocks: int = 3,
        dropout: float = 0.0,
        conditioning: Conditioning = NOISE_LEVEL,
    ):
        super().__init__(shape, width, conditioning)
        if conditioning.drawn:
            raise UserError("expected drawn = False: a perceptron has no feature maps; use a UNet")
        self.stem = nn.Linear(self.inputs * math.prod(shape[1:]), width)
        self.blocks = nn.ModuleList(
            DenseBlock(width, self.sources, self.condition_width, dropout) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.out = damped(nn.Linear(width, math.prod(shape)))

    def body(self, h: FeatureMap, conditions: Conditions, z: CodeVector | None) -> Data:
        h = self.stem(h.flatten(1))
        for block in self.blocks:
            h = block(h, conditions)
        return self.out(F.silu(self.norm(h))).unflatten(1, self.shape)


class Generator(nn.Module):
    """z (B, code_dim) -> x (B, *shape), the decoder of an autoencoder: a linear map to at most 4 positions an axis,
    then residual blocks and doublings, from 4 width channels to `width` at full size; patch: at 1 / patch of it, and
    the last convolution outputs patches."""

    def __init__(self, shape: Shape, code_dim: int, width: int = 32, patch: int = 1):
        super().__init__()
        dims, doublings = dimensions(shape), halvings(tuple(-(-n // patch) for n in shape[1:]))
        channels = [width, *(width * min(2**i, 4) for i in range(doublings))][::-1]
        self.code_dim, self.patch = code_dim, patch
        self.padding = Padding(shape[1:], patch * 2**doublings)
        self.coarse = (channels[0], *(n // (patch * 2**doublings) for n in self.padding.padded))
        self.stem = nn.Linear(code_dim, math.prod(self.coarse))
        self.blocks = nn.ModuleList(
            ResidualBlock(dims, inputs, outputs, sources=0, width=0)
            for inputs, outputs in zip(channels, [*channels[1:], width], strict=True)
        )
        self.norm = group_norm(width)
        self.out = convolution(dims, width, patch**dims * shape[0])

    def forward(self, z: CodeVector) -> Data:
        _check_code(z, self.code_dim)
        h = self.stem(z).unflatten(1, self.coarse)
        for i, block in enumerate(self.blocks):
            h = block(upsampled(h) if i else h, ())
        return self.padding.crop(depth_to_space(self.out(F.silu(self.norm(h))), self.patch))


class MLPGenerator(nn.Module):
    """z (B, code_dim) -> x (B, *shape) through `blocks` residual blocks of `width` units: Generator for vectors."""

    def __init__(self, shape: Shape, code_dim: int, width: int = 256, blocks: int = 3):
        super().__init__()
        self.shape, self.code_dim = tuple(shape), code_dim
        self.stem = nn.Linear(code_dim, width)
        self.blocks = nn.ModuleList(DenseBlock(width, 0, 0) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, math.prod(shape))

    def forward(self, z: CodeVector) -> Data:
        _check_code(z, self.code_dim)
        h = self.stem(z)
        for block in self.blocks:
            h = block(h, ())
        return self.out(F.silu(self.norm(h))).unflatten(1, self.shape)


def _check_code(z: CodeVector, code_dim: int) -> None:
    if z.ndim != 2 or z.shape[1] != code_dim:
        raise UserError(f"expected a code of shape (B, {code_dim}), got {tuple(z.shape)}")
