"""Digits drawn again with strokes and colours that are stated as factors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from diffrep.data.raw import Raw
from diffrep.data.reading import Reading
from diffrep.data.values import of_array

SIDE = 16  # pixels of a picture; everything is drawn at twice that and averaged
FINE = 2
DRAWINGS = 4  # of each source digit
TINT = 0.15  # how far the ink is from white: little, so that its hue is a fine factor


@dataclass(frozen=True)
class _Drawn:
    """The pictures (7188, 3, 16, 16), and of each its split, its class, its source digit and its factors."""

    pictures: np.ndarray
    split: np.ndarray
    classes: np.ndarray
    source: np.ndarray
    factors: dict[str, np.ndarray]


def digits_factors(reading: Reading) -> Raw:
    """7,188 pictures (3, 16, 16) of 8 bit: each of scikit-learn's 1,797 digits drawn four times, and its class.

    Factors: `stroke` (width of the pen, 1.3 to 1.9 pixels), `hue` (of a light tint, 0 red to 2/3 blue) and `background`
    (0 black to 0.08). Summed over a picture they have variances of 3.7, 2.1 and 1.2 at the same digit, while means of
    classes have 39: so hue and background show later, at less noise. Two source digits in ten are test, one is
    validation, with all their drawings.
    Whole-number arithmetic, frozen random numbers and single operations on float64: the same everywhere.
    """
    drawn = _drawn()
    values, reading = of_array(drawn.pictures, "digits-factors", replace(reading, layout="nchw"))
    return Raw(
        values,
        replace(reading, label="class", split="arrays", factors=tuple(drawn.factors)),
        split=drawn.split,
        labels=drawn.classes.astype(object),
        label_names=[str(k) for k in range(10)],
        ids=[f"digit {digit} drawing {k % DRAWINGS}" for k, digit in enumerate(drawn.source)],
        factors=drawn.factors,
    )


@cache
def _drawn() -> _Drawn:
    from sklearn.datasets import load_digits

    digits = load_digits()
    count = len(digits.images)
    random = np.random.RandomState(0)  # whose streams never change from one version of NumPy to another
    tenth = random.permutation(count) % 10
    split = np.where(tenth < 2, "test", np.where(tenth < 3, "valid", "train"))
    source = np.repeat(np.arange(count), DRAWINGS)
    factors = {
        "stroke": random.uniform(1.3, 1.9, len(source)),
        "hue": random.uniform(0, 2 / 3, len(source)),
        "background": random.uniform(0, 0.08, len(source)),
    }
    pictures = draw(digits.images.astype(np.int64), source, **factors)
    return _Drawn(pictures, split[source], digits.target[source], source, factors)


def draw(
    shapes: np.ndarray,
    source: np.ndarray,
    *,
    stroke: np.ndarray,
    hue: np.ndarray,
    background: np.ndarray,
) -> np.ndarray:
    """(M, 3, 16, 16) uint8: shape `source` (M,) of `shapes` (N, 8, 8), whole numbers 0 to 16, once for each row.

    The ridge of a shape is drawn with a round pen of `stroke` pixels, tinted, on a grey ground.
    """
    near = np.stack([_distance(ridge) for ridge in _ridges(shapes)])[source]
    ink = np.clip(stroke[:, None, None] * FINE / 2 - near + 0.5, 0, 1).reshape(-1, SIDE, FINE, SIDE, FINE)
    ink = (ink[:, :, 0, :, 0] + ink[:, :, 0, :, 1] + ink[:, :, 1, :, 0] + ink[:, :, 1, :, 1])[:, None] / FINE**2
    ground = background[:, None, None, None]
    pixels = ground + ink * (_colour(hue)[:, :, None, None] - ground)
    return np.rint(255 * pixels).astype(np.uint8)


def _ridges(shapes: np.ndarray) -> np.ndarray:
    """(N, 8, 8) -> (N, 32, 32) bool: the shape enlarged three times, and where its grey is highest across a stroke."""
    grey = np.einsum("ia,nab,jb->nij", ENLARGE, shapes, ENLARGE)  # whole numbers, 144 for black
    grey = np.pad(grey, ((0, 0), (4, 4), (4, 4)))
    ridge = grey >= 126
    for step in ((0, 1), (1, 0), (1, 1), (1, -1)):
        sides = [np.roll(grey, (sign * step[0], sign * step[1]), (1, 2)) for sign in (1, -1, 3, -3)]
        crest = (grey >= sides[0]) & (grey >= sides[1]) & (grey > sides[2] + 12) & (grey > sides[3] + 12)
        ridge |= crest & (grey >= 48)
    return ridge


def _enlarge() -> np.ndarray:
    """(24, 8) whole numbers: bilinear interpolation from 8 to 24 pixels, in thirds."""
    weights = np.zeros((24, 8), np.int64)
    for pixel in range(24):
        left, thirds = divmod(pixel - 1, 3)
        weights[pixel, max(left, 0)] += 3 - thirds
        weights[pixel, min(left + 1, 7)] += thirds
    return weights


ENLARGE = _enlarge()


def _distance(ridge: np.ndarray) -> np.ndarray:
    """(H, W) distance of each pixel to the nearest one of the ridge, in pixels: roots of whole numbers."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~ridge)


def _colour(hue: np.ndarray) -> np.ndarray:
    """(M,) -> (M, 3) light tints: the pure hue mixed with white."""
    pure = np.clip(2 - np.abs((6 * hue[:, None] - np.array([0.0, 2.0, 4.0]) + 3) % 6 - 3), 0, 1)
    return 1 - TINT * (1 - pure)
