"""Examples on a page: images as pixels, signals as lines, tables as bars."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from markupsafe import Markup, escape
from PIL import Image
from torch import Tensor

from diffrep.pages.svg import drawing
from diffrep.shapes import Shape

SIDE = 96  # pixels of the largest tile; larger pictures are made smaller
SOFT = 40  # pixels from which on a colour picture is stored with invisible losses
BARS = 48  # numbers of a vector that are still drawn as bars


def pictured(shape: Shape) -> bool:
    """Are examples of this shape pictures, or slices of a volume?"""
    return len(shape) >= 3


def strip(x: Tensor, label: str, limits: tuple[float, float] | None = None) -> Markup:
    """A row of examples x (N, *shape) as one picture, with its alternative text."""
    return sheet(x, len(x), label, limits)


def sheet(x: Tensor, columns: int, label: str, limits: tuple[float, float] | None = None) -> Markup:
    """Examples x (N, *shape), row by row, as one picture. limits: one vertical scale for several pictures of lines."""
    x = x.detach().float().cpu()
    if pictured(tuple(x.shape[1:])):
        pixels = grid(tiles(x), columns)
        small = "pixels" if max(x.shape[-2:]) < SOFT else "photos"
        return Markup(
            f'<img class="{small}" src="{uri(pixels)}" width="{pixels.shape[1]}" height="{pixels.shape[0]}"'
            f' alt="{escape(label)}">'
        )
    return _drawn(x, columns, label, limits or limits_of(x))


def limits_of(*groups: Tensor) -> tuple[float, float]:
    """A vertical scale that holds all but the outermost thousandth of several groups of examples."""
    values = torch.cat([group.detach().float().cpu().flatten() for group in groups])
    values = values[:: max(1, len(values) // 100_000)]
    low, high = (float(values.quantile(q)) for q in (0.001, 0.999))
    room = 0.05 * (high - low) or 1.0
    return min(low, 0.0) - room, max(high, 0.0) + room


def tiles(x: Tensor) -> np.ndarray:
    """x (N, C, *spatial) in [-1, 1] -> (N, H, W, 4) uint8; volumes by their middle slice."""
    while x.ndim > 4:
        x = x[:, :, x.shape[2] // 2]
    if x.shape[1] not in (1, 3, 4):
        x = x.mean(1, keepdim=True)
    largest = max(x.shape[2:])
    if largest > SIDE:
        size = [max(1, round(side * SIDE / largest)) for side in x.shape[2:]]
        x = torch.nn.functional.interpolate(x, size=size, mode="area")
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().numpy().transpose(0, 2, 3, 1)
    if pixels.shape[-1] == 1:
        pixels = pixels.repeat(3, -1)
    if pixels.shape[-1] == 3:
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], -1)
    return pixels


def grid(cells: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """(N, H, W, 4) -> one picture with transparent gaps between its tiles."""
    n, height, width, _ = cells.shape
    rows = -(-n // columns)
    gap = max(gap, round(max(height, width) / 16))
    whole = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for i, tile in enumerate(cells):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        whole[top : top + height, left : left + width] = tile
    return whole


def uri(pixels: np.ndarray) -> str:
    """A picture (H, W, 4) uint8 as a data address."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if max(pixels.shape[:2]) < 400:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "WEBP", lossless=_grey(pixels), quality=85, method=4)
    kind = "png" if file.getvalue()[:4] == b"\x89PNG" else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def sprites(x: Tensor, side: int = 32) -> tuple[np.ndarray, int, int]:
    """A small picture of each example, in columns of 25 -> (picture, width, height of one); lines on a transparent
    ground."""
    x = x.detach().float().cpu()
    if pictured(tuple(x.shape[1:])):
        cells = tiles(x)
        if max(cells.shape[1:3]) > side:
            scale = side / max(cells.shape[1:3])
            size = (max(1, round(cells.shape[2] * scale)), max(1, round(cells.shape[1] * scale)))
            cells = np.stack([np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.BOX)) for tile in cells])
    else:
        cells = _inked(x, limits_of(x), 2 * side, side)
    n, height, width, _ = cells.shape
    rows = -(-n // 25)
    whole = np.zeros((rows * height, 25 * width, 4), np.uint8)
    for i, tile in enumerate(cells):
        top, left = (i // 25) * height, (i % 25) * width
        whole[top : top + height, left : left + width] = tile
    return whole, width, height


def _grey(pixels: np.ndarray) -> bool:
    return bool((pixels[..., :1] == pixels[..., 1:3]).all())


def _inked(x: Tensor, limits: tuple[float, float], width: int, height: int) -> np.ndarray:
    """Signals or vectors (N, ...) as lines (N, height, width, 4) on a transparent ground."""
    low, high = limits
    cells = np.zeros((len(x), height, width, 4), np.uint8)
    cells[..., :3] = 128
    for tile, example in zip(cells, x, strict=True):
        for line in _lines(example):
            at = np.linspace(0, len(line) - 1, width)
            y = np.interp(at, np.arange(len(line)), line)
            rows = ((1 - (y - low) / (high - low)) * (height - 1)).clip(0, height - 1).round().astype(int)
            for column, (a, b) in enumerate(zip(rows, np.append(rows[1:], rows[-1]), strict=True)):
                tile[min(a, b) : max(a, b) + 1, column, 3] = 255
    return cells


def _drawn(x: Tensor, columns: int, label: str, limits: tuple[float, float]) -> Markup:
    """Signals as lines, short vectors as bars: one small panel for each example."""
    wide, high, gap = 60.0, 44.0, 6.0
    low, top = limits
    rows = -(-len(x) // columns)
    drawn = []

    def up(value: float) -> float:
        return high * (1 - (min(max(value, low), top) - low) / (top - low))

    for i, example in enumerate(x):
        left, above = (i % columns) * (wide + gap), (i // columns) * (high + gap)
        drawn.append(
            f'<g transform="translate({left:g} {above:g})"><rect class="panel" width="{wide:g}" height="{high:g}"/>'
        )
        for k, line in enumerate(_lines(example)):
            if example.ndim == 1 and len(line) <= BARS:
                drawn.append(_bars(line, wide, up))
            else:
                drawn.append(_line(line, wide, up, f"thin c{k % 6 + 1}"))
        drawn.append("</g>")
    return drawing(columns * (wide + gap) - gap, rows * (high + gap) - gap, "".join(drawn), label, "panels")


def _bars(line: np.ndarray, wide: float, up) -> str:
    step, zero = wide / len(line), up(0.0)
    return "".join(
        f'<rect class="fill c1" x="{step * (i + 0.1):.1f}" y="{min(up(v), zero):.1f}" width="{0.8 * step:.1f}"'
        f' height="{max(abs(up(v) - zero), 0.4):.1f}"/>'
        for i, v in enumerate(line.tolist())
    )


def _line(line: np.ndarray, wide: float, up, style: str) -> str:
    most = 120
    if len(line) > most:
        line = np.interp(np.linspace(0, len(line) - 1, most), np.arange(len(line)), line)
    step = wide / max(len(line) - 1, 1)
    points = " ".join(f"{step * i:.1f},{up(v):.1f}" for i, v in enumerate(line.tolist()))
    return f'<polyline class="{style}" points="{points}"/>'


def _lines(example: Tensor) -> Sequence[np.ndarray]:
    return [line.numpy() for line in (example[None] if example.ndim == 1 else example.flatten(1))]
