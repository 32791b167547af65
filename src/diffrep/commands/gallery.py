"""Examples as a picture: a grid of images, or lines where the examples are signals or vectors."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from diffrep.errors import UserError
from diffrep.files import write_bytes
from diffrep.shapes import Data


def save_grid(x: Data, path: str | Path, columns: int = 8) -> None:
    """Write examples x (N, *shape) as one PNG, row by row; images by their pixels, all else as lines.

    Images (1, 3 or 4 channels) are scaled up by a whole factor until a tile has at least 56 pixels. UserError: the
    file cannot be written; what was there before is intact.
    """
    picture = io.BytesIO()
    if x.ndim == 4 and x.shape[1] in (1, 3, 4):
        Image.fromarray(grid(x, columns)).save(picture, "PNG")
    else:
        _lines(x, picture, columns)
    write_bytes(Path(path), picture.getvalue())


def check_place(path: Path, *suffixes: str) -> None:
    """UserError, before any work is done, where a file with one of these suffixes could not be written to `path`."""
    if path.suffix.lower() not in suffixes or path.is_dir():
        raise UserError(f"{path} is no place for the output: name a {' or '.join(suffixes)} file with -o.")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(
            f"{path} cannot be written, since {parent} is no directory that may be written to: pick another."
        )


def grid(x: Data, columns: int) -> np.ndarray:
    """x (N, C, H, W) in [-1, 1] -> (rows H', columns W'[, C]) uint8, with a gap of two pixels between tiles."""
    factor = max(1, -(-56 // max(x.shape[2:])))
    pixels = ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    pixels = pixels.repeat(factor, 2).repeat(factor, 3).transpose(0, 2, 3, 1)
    n, height, width, channels = pixels.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 2) + 2, columns * (width + 2) + 2, channels), 255, np.uint8)
    for i, tile in enumerate(pixels):
        top, left = 2 + (i // columns) * (height + 2), 2 + (i % columns) * (width + 2)
        sheet[top : top + height, left : left + width] = tile
    return sheet[..., 0] if channels == 1 else sheet


def _lines(x: Data, file: io.BytesIO, columns: int) -> None:
    from matplotlib.figure import Figure

    rows = -(-len(x) // columns)
    limits = float(x.min()) - 0.05, float(x.max()) + 0.05  # one scale, so that a reconstruction can be compared
    figure = Figure(figsize=(1.6 * columns, 1.2 * rows), layout="constrained")
    for i, example in enumerate(x.float().cpu()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for line in _channels(example):
            axes.plot(line.numpy(), linewidth=0.6)
        axes.set_ylim(*limits)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(file, format="png", dpi=100)


def _channels(example: Tensor) -> Tensor:
    return example[None] if example.ndim == 1 else example.flatten(1)
