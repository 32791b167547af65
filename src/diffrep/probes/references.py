"""Features that always stand beside a code: pixels, PCA, an encoder that was not trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from diffrep.data import Examples

PIXELS, PCA, RANDOM = "pixels", "pca", "random-encoder"
SIDES = {1: 3072, 2: 32, 3: 16}  # longest side of signals, pictures, volumes; larger ones are averaged down to it
Encode = Callable[[Examples], np.ndarray]  # a split -> its features (N, d), in order


def references(parts: Sequence[Examples], dim: int, untrained: Encode) -> dict[str, list[np.ndarray]]:
    """name -> features (N, d) of each of the parts, the first of which is train.

    pixels: x as it is, averaged down to 32 x 32 where it is larger. pca: the first `dim` principal components of these
    over train, not whitened. random-encoder: what `untrained` says, an encoder of the same architecture and code size.
    """
    flat = [pixels(part) for part in parts]
    return {PIXELS: flat, PCA: pca(flat, dim), RANDOM: [untrained(part) for part in parts]}


def pixels(examples: Examples, chunk: int = 500) -> np.ndarray:
    """(N, d) float32: x of each example, flat; see `SIDES`."""
    shape = examples.shape
    side = SIDES.get(len(shape) - 1, 0)
    small = [min(length, side) for length in shape[1:]]
    rows = []
    for index in torch.arange(len(examples)).split(chunk):
        x = examples.batch(index).x.cpu()
        rows.append((F.interpolate(x, small, mode="area") if tuple(small) != shape[1:] else x).flatten(1))
    return torch.cat(rows).numpy()


def pca(parts: Sequence[np.ndarray], dim: int) -> list[np.ndarray]:
    """The first `dim` principal components over the first part, not whitened; all of them where there are fewer."""
    from sklearn.decomposition import PCA as Components

    fitted = Components(min(dim, *parts[0].shape), random_state=0).fit(parts[0])
    return [fitted.transform(part) for part in parts]
