"""Features to compare every code with: pixels, PCA, and an encoder that is not trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from diffrep.data import Examples
from diffrep.probes.result import quiet

PIXELS, PCA, RANDOM = "pixels", "pca", "random-encoder"
SIDES = {1: 3072, 2: 32, 3: 16}  # longest side of signals, pictures, volumes; larger ones are averaged down to it
Encode = Callable[[Examples], np.ndarray]  # a split -> its features (N, d), in order


def references(splits: Sequence[Examples], dim: int, untrained: Encode) -> dict[str, list[np.ndarray]]:
    """name -> features (N, d) of each split; the first split is train.

    pixels: x as it is, averaged down to 32 x 32 where it is larger. pca: the first `dim` principal components of these
    over train, not whitened. random-encoder: the codes of `untrained`, an encoder of the same architecture and code
    size.
    """
    flat = [pixels(split) for split in splits]
    return {PIXELS: flat, PCA: pca(flat, dim), RANDOM: [untrained(split) for split in splits]}


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


@quiet
def pca(splits: Sequence[np.ndarray], dim: int) -> list[np.ndarray]:
    """The first `dim` principal components over the first split, not whitened; all of them where there are fewer."""
    from sklearn.decomposition import PCA as Components

    fitted = Components(min(dim, *splits[0].shape), random_state=0).fit(splits[0])
    return [fitted.transform(split) for split in splits]
