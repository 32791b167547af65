"""Examples as a picture: a grid of images, or lines where the examples are signals or vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from diffrep.errors import UserError
from diffrep.shapes import Data


def save_grid(x: Data, path: str | Path, columns: int = 8) -> None:
    """Write examples x (N, *shape) as one PNG, row by row; images by their pixels, all else as lines.

    Images (1, 3 or 4 channels) are scaled up by a whole factor until a tile has at least 56 pixels. UserError: the
    file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if x.ndim == 4 and x.shape[1] in (1, 3, 4):
            Image.fromarray(grid(x, columns)).save(path)
        else:
            _lines(x, path, columns)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"the picture {path} cannot be written ({reason}); give a place for a .png file.") from error


def grid(x: Data, columns: int) -> np.ndarray:
    """x (N, C, H, W) in [-1, 1] -> (rows H', columns W'[, C]) uint8, with a gap of two pixels between tiles."""
    factor = max(1, -(-56 // max(x.shape[2:])))
    levels = ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    levels = levels.repeat(factor, 2).repeat(factor, 3).transpose(0, 2, 3, 1)
    n, height, width, channels = levels.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 2) + 2, columns * (width + 2) + 2, channels), 255, np.uint8)
    for i, tile in enumerate(levels):
        top, left = 2 + (i // columns) * (height + 2), 2 + (i % columns) * (width + 2)
        sheet[top : top + height, left : left + width] = tile
    return sheet[..., 0] if channels == 1 else sheet


def _lines(x: Data, path: Path, columns: int) -> None:
    from matplotlib.figure import Figure

    rows = -(-len(x) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.2 * rows), layout="constrained")
    for i, example in enumerate(x.float().cpu()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for line in _channels(example):
            axes.plot(line.numpy(), linewidth=0.6)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(path, dpi=100)


def _channels(example: Tensor) -> Tensor:
    return example[None] if example.ndim == 1 else example.flatten(1)
