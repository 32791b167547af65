"""Factors measured from pictures of one thing on a plain ground: its area, intensity, shape and tint.

They are measured from pixels, so any such data have them, and they are accurate only where the ground is plain.
"""

from __future__ import annotations

import numpy as np

from diffrep.errors import UserError

APART = 0.1  # of full scale: how far a channel is from the ground where the thing is


def appearance(x: np.ndarray) -> dict[str, np.ndarray]:
    """Factors (N,) of pictures x (N, C, H, W) in [-1, 1]; NaN where no pixel differs from the ground.

    The ground is the median of the border, channel by channel; the thing is where a channel is more than a tenth of
    full scale from it. `area`: its share of the pixels. `intensity`: its mean, 0 black to 1 white. `aspect`: log of the
    standard deviation of its rows over that of its columns, positive where it is tall. `red_green`, of three channels:
    red minus green, -1 to 1. UserError: examples that are not grey or RGB pictures.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < 3:
        raise UserError(
            "appearance needs grey or RGB pictures (N, C, H, W) of at least 3x3 pixels, got examples of shape"
            f" {x.shape[1:]}; leave it out."
        )
    y = (x.astype(np.float64) + 1) / 2
    border = np.concatenate([y[:, :, 0], y[:, :, -1], y[:, :, 1:-1, 0], y[:, :, 1:-1, -1]], axis=2)
    ground = np.median(border, axis=2)[:, :, None, None]
    thing = (np.abs(y - ground) > APART).any(1)  # (N, H, W)
    size = thing.sum((1, 2))
    rows, columns = np.mgrid[: x.shape[2], : x.shape[3]]
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing stands out: 0 / 0
        colour = (y * thing[:, None]).sum((2, 3)) / size[:, None]
        aspect = np.log(_std(thing, rows) / _std(thing, columns))
    factors = {
        "area": np.where(size > 0, size / thing[0].size, np.nan),
        "intensity": colour.mean(1),
        "aspect": np.where(np.isfinite(aspect), aspect, np.nan),
    }
    return factors | ({"red_green": colour[:, 0] - colour[:, 1]} if x.shape[1] == 3 else {})


def _std(thing: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Standard deviation (N,) of `place` (H, W) over the pixels of each thing (N, H, W)."""
    size = thing.sum((1, 2))
    mean = (thing * place).sum((1, 2)) / size
    return np.sqrt((thing * (place - mean[:, None, None]) ** 2).sum((1, 2)) / size)
