"""The blocks of all networks: convolution in 1-3 dimensions, residual block, attention, modulation, padding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.errors import UserError
from diffrep.shapes import FeatureMap, Shape

Conditions = tuple[Tensor, ...]  # vectors (B, width) that modulate every block: of the noise level, of the code
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS: dict[int, type[Convolution]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def dimensions(shape: Shape) -> int:
    """How many spatial axes an example of `shape` (C, *spatial) has: 1, 2 or 3; UserError for any other shape."""
    if len(shape) - 1 not in CONVOLUTIONS:
        raise UserError(f"expected data of shape (C, L), (C, H, W) or (C, D, H, W), got {shape}; vectors need an MLP")
    return len(shape) - 1


def convolution(dims: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> Convolution:
    """Convolution over `dims` axes, each of n becoming ceil(n / stride); an odd kernel."""
    return CONVOLUTIONS[dims](inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def patches(dims: int, inputs: int, outputs: int, size: int) -> Convolution:
    """One vector of `outputs` numbers for each patch of `size` positions an axis, which must divide the data."""
    return CONVOLUTIONS[dims](inputs, outputs, size, stride=size)


def halvings(spatial: tuple[int, ...], most: int = 4) -> int:
    """How often the longest of the spatial axes must be halved (rounding up) to have at most `most` positions."""
    return max(0, math.ceil(math.log2(max(spatial) / most)))


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """GroupNorm of at most 8 groups, each of at least 4 channels where there are as many.

    It normalises each example by itself: unlike BatchNorm, its result does not depend on the batch.
    """
    groups = next((g for g in (8, 4, 2) if channels % g == 0 and channels // g >= 4), 1)
    return nn.GroupNorm(groups, channels, affine=affine)


def thinned(h: FeatureMap, stride: int) -> FeatureMap:
    """Every stride-th position of each spatial axis: those that a 1x1 convolution with that stride reads.

    The convolution itself has stride 1, because PyTorch 2.13 on the CPU writes outside of its memory in the backward
    pass of a strided 1x1 convolution in channels_last layout (with 8 channels at 64x64; it ends the process).
    """
    spaced = (slice(None), slice(None), *[slice(None, None, stride)] * (h.ndim - 2))
    return h if stride == 1 else h[spaced]


def damped(layer: nn.Linear | Convolution, scale: float = 0.1) -> nn.Module:
    """The layer with its initial weights scaled down and bias 0: small outputs at first, but not zero gradients."""
    with torch.no_grad():
        layer.weight.mul_(scale)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


class Modulation(nn.Module):
    """FiLM: h -> (1 + scale) h + shift; scale and shift are the sum of one linear projection for each condition.

    Projections are initialised like any linear layer, not at zero: a loss on the output has a gradient to the code at
    the first step. Without conditions it returns h. axis: where h (B, ...) has its channels.
    """

    def __init__(self, channels: int, sources: int, width: int, axis: int = 1):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, 2 * channels) for _ in range(sources))
        self.axis = axis

    def forward(self, h: Tensor, conditions: Conditions) -> Tensor:
        if not len(self.projections):
            return h
        both = sum(project(c) for project, c in zip(self.projections, conditions, strict=True))
        where = [1] * h.ndim
        where[0], where[self.axis] = h.shape[0], -1  # len() would fix the batch of an export
        scale, shift = (factor.reshape(where) for factor in both.chunk(2, dim=1))
        return torch.addcmul(shift, h, 1 + scale)


class ResidualBlock(nn.Module):
    """skip(h) + conv(silu(FiLM(norm(conv(silu(h)))))): (B, inputs, *spatial) -> (B, outputs, *spatial / stride).

    One normalisation, after the first convolution, makes the branch independent of the scale of h; a second one before
    it would take up to a tenth of the time of a step on a CPU. sources, width: how many conditions modulate it, and
    their width. dropout: before the second convolution.
    """

    def __init__(
        self, dims: int, inputs: int, outputs: int, sources: int, width: int, stride: int = 1, dropout: float = 0.0
    ):
        super().__init__()
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else convolution(dims, inputs, outputs, kernel=1)
        self.stride = stride
        self.conv1 = convolution(dims, inputs, outputs, stride=stride)
        self.norm = group_norm(outputs, affine=sources == 0)
        self.film = Modulation(outputs, sources, width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = convolution(dims, outputs, outputs)

    def forward(self, h: FeatureMap, conditions: Conditions) -> FeatureMap:
        r = self.conv1(F.silu(h))
        r = self.conv2(self.dropout(F.silu(self.film(self.norm(r), conditions))))
        return self.skip(thinned(h, self.stride)) + r


class DenseBlock(nn.Module):
    """h + linear(silu(FiLM(norm(linear(h))))) on vectors (B, width): the residual block without space."""

    def __init__(self, width: int, sources: int, condition_width: int, dropout: float = 0.0):
        super().__init__()
        self.linear1 = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=sources == 0)
        self.film = Modulation(width, sources, condition_width)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(width, width)

    def forward(self, h: Tensor, conditions: Conditions) -> Tensor:
        return h + self.linear2(self.dropout(F.silu(self.film(self.norm(self.linear1(h)), conditions))))


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, width) -> (B, N, width); `heads` must divide `width`."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise UserError(f"expected a number of attention heads that divides the width {width}, got {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class SpatialAttention(nn.Module):
    """h + attention(norm(h)), where every position of (B, C, *spatial) is a token; one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.attention = Attention(channels, heads=1)

    def forward(self, h: FeatureMap) -> FeatureMap:
        tokens = self.norm(h).flatten(2).transpose(1, 2)  # no copy where h is channels_last
        return h + self.attention(tokens).transpose(1, 2).unflatten(2, h.shape[2:])


def upsampled(h: FeatureMap) -> FeatureMap:
    """Every spatial axis doubled, each value repeated."""
    return F.interpolate(h, scale_factor=2.0, mode="nearest")


def space_to_depth(h: FeatureMap, side: int) -> FeatureMap:
    """(B, C, *n) -> (B, side^axes C, *n / side): the positions of a patch become channels; n must be multiples."""
    if side == 1:
        return h
    axes = range(h.ndim - 2)
    split = h.reshape(*h.shape[:2], *(part for n in h.shape[2:] for part in (n // side, side)))
    return split.permute(0, 1, *(3 + 2 * a for a in axes), *(2 + 2 * a for a in axes)).flatten(1, h.ndim - 1)


def depth_to_space(h: FeatureMap, side: int) -> FeatureMap:
    """The inverse of `space_to_depth`: (B, side^axes C, *n) -> (B, C, *n side)."""
    if side == 1:
        return h
    axes = h.ndim - 2
    split = h.unflatten(1, (-1, *[side] * axes))
    joined = split.permute(0, 1, *(i for a in range(axes) for i in (2 + axes + a, 2 + a)))
    return joined.reshape(len(h), -1, *(n * side for n in h.shape[2:]))


class Padding:
    """Pads each spatial axis to a multiple of `multiple` by repeating the border, and crops it again."""

    def __init__(self, spatial: tuple[int, ...], multiple: int):
        missing = [-n % multiple for n in spatial]
        self.padded = tuple(n + m for n, m in zip(spatial, missing, strict=True))
        self.amounts = [side for m in reversed(missing) for side in (m // 2, m - m // 2)]  # F.pad: last axis first
        insides = [slice(m // 2, m // 2 + n) for n, m in zip(spatial, missing, strict=True)]
        self.inside = (slice(None), slice(None), *insides)

    def pad(self, x: FeatureMap) -> FeatureMap:
        return F.pad(x, self.amounts, mode="replicate") if any(self.amounts) else x

    def crop(self, x: FeatureMap) -> FeatureMap:
        return x[self.inside] if any(self.amounts) else x
