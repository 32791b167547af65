"""Features to compare every code with: pixels, PCA, and an encoder that is not trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import numpy as np
import torch
from torch.nn import functional as F

from diffrep.data import Examples
from diffrep.probes.result import quiet
from diffrep.shapes import Shape

PIXELS, PCA, RANDOM = "pixels", "pca", "random-encoder"
SIDES = {1: 3072, 2: 32, 3: 16}  # longest side of signals, pictures, volumes; larger ones are averaged down to it
Encode = Callable[[Examples], np.ndarray]  # a split -> its features (N, d), in order


@dataclass(frozen=True, eq=False)
class Features:
    """Features (N, dim) of each split, made when they are first asked for.

    origin: all that they follow from; None: what nobody else has.
    """

    dim: int
    make: Callable[[], list[np.ndarray]]
    origin: tuple[object, ...] | None = None
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    @property
    def of_splits(self) -> list[np.ndarray]:
        """The features of each split, in its order."""
        with self._lock:  # several probes may ask at once
            return self._made

    @cached_property
    def _made(self) -> list[np.ndarray]:
        return self.make()


def references(splits: Sequence[Examples], dim: int, untrained: Encode, weights: object = None) -> dict[str, Features]:
    """name -> features; the first split is train.

    pixels: x as it is, averaged down to 32 x 32 where it is larger. pca: the first `dim` principal components of these
    over train, not whitened. random-encoder: the codes of `untrained`, an encoder of the same architecture and code
    size. weights: a digest of what `untrained` depends on.
    """
    data, numbers = [split.content() for split in splits], math.prod(_small(splits[0].shape))
    flat = Features(numbers, lambda: [pixels(split) for split in splits], ("pixels-1", *data))
    components = min(dim, numbers, len(splits[0]))
    return {
        PIXELS: flat,
        PCA: Features(components, lambda: pca(flat.of_splits, dim), ("pca-1", dim, *data)),
        RANDOM: Features(dim, lambda: [untrained(split) for split in splits], ("codes-1", weights, *data)),
    }


def pixels(examples: Examples, chunk: int = 500) -> np.ndarray:
    """(N, d) float32: x of each example, flat; see `SIDES`."""
    shape = examples.shape
    small = _small(shape)[1:]
    rows = []
    for index in torch.arange(len(examples)).split(chunk):
        x = examples.batch(index).x.cpu()
        rows.append((F.interpolate(x, list(small), mode="area") if small != shape[1:] else x).flatten(1))
    return torch.cat(rows).numpy()


@quiet
def pca(splits: Sequence[np.ndarray], dim: int) -> list[np.ndarray]:
    """The first `dim` principal components over the first split, not whitened; all of them where there are fewer."""
    from sklearn.decomposition import PCA as Components

    fitted = Components(min(dim, *splits[0].shape), random_state=0).fit(splits[0])
    return [fitted.transform(split) for split in splits]


def _small(shape: Shape) -> Shape:
    """The shape of an example after averaging."""
    side = SIDES.get(len(shape) - 1, 0)
    return (shape[0], *(min(length, side) for length in shape[1:]))
