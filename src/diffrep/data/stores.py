"""Stores of raw values: in memory, in a mapped file, or in encoded pictures that are read one by one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffrep.data.pictures import decode

SMALL = 2**30  # bytes: a set that takes more than this once decoded is read lazily
AT_ONCE = 2**22  # numbers of an array that are read at a time
HEAD = 2**16  # bytes of each example that enter the digest of a lazily read set


@dataclass(frozen=True)
class Grid:
    """How values become x: slope * value + shift is one of `bins` grey levels, or, with bins None, x itself."""

    bins: int | None
    slope: float = 1.0
    shift: float = 0.0

    def store(self, values: Any, given: bool = False) -> Tensor:
        """A copy as a tensor, made block by block: uint8 (up to 256 grey levels) or int32; float32 on the scale of x
        otherwise. given: the array is not used by others, so it is kept as it is where it fits."""
        kind = np.float32 if self.bins is None else np.uint8 if self.bins <= 256 else np.int32
        if given and self.bins is not None and values.dtype == kind and (self.slope, self.shift) == (1.0, 0.0):
            return torch.from_numpy(values)
        stored = np.empty(values.shape, kind)
        for rows in blocks(values.shape):
            stored[rows] = self._scaled(values[rows])
        return torch.from_numpy(stored)

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        if self.bins is None:
            return values.astype(np.float32) * np.float32(self.slope) + np.float32(self.shift)
        if (self.slope, self.shift) == (1.0, 0.0):
            return values
        return np.rint(values.astype(np.float64) * self.slope + self.shift).clip(0, self.bins - 1)

    def x(self, stored: Tensor) -> Tensor:
        """Grey level k of `bins` -> 2 (k + 1/2) / bins - 1, in (-1, 1); floats are on that scale already."""
        if self.bins is None:
            return stored.float()
        return stored.float().mul_(2).add_(1).div_(self.bins).sub_(1)

    def values(self, x: np.ndarray) -> np.ndarray:
        """x as a model gives it, of any shape -> values on their own scale, those of the nearest grey levels."""
        if self.bins is not None:
            x = np.rint((x + 1) / 2 * self.bins - 0.5).clip(0, self.bins - 1)
        return (x - self.shift) / self.slope


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of an array of that shape, in pieces of at most 2^22 numbers, or of one row."""
    rows = max(1, AT_ONCE // max(1, math.prod(shape[1:])))
    return (slice(start, start + rows) for start in range(0, shape[0], rows))


class OnDisk:
    """An array (N, ...) in a file of HDF5 or Zarr, with its axes in another order if need be; rows are read when they
    are asked for. It offers what `values.of_array` asks of an array in memory, and can be pickled."""

    def __init__(self, array: Any, axes: Sequence[int] | None = None, channel: bool = False):
        self.array, self.channel = array, channel
        self.axes = tuple(range(len(array.shape))) if axes is None else tuple(axes)
        lengths = [int(array.shape[axis]) for axis in self.axes]
        self.shape, self.dtype = (lengths[0], *([1] if channel else []), *lengths[1:]), np.dtype(array.dtype)
        self.ndim, self.nbytes = len(self.shape), math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        """Rows by a slice, or by places (B,) in any order; `[:, None]` adds an axis of one channel."""
        if isinstance(rows, tuple):
            return OnDisk(self.array, self.axes, channel=True)
        if isinstance(rows, slice):
            part = np.asarray(self.array[rows])
        else:
            wanted, back = np.unique(rows, return_inverse=True)  # files are read in rising order
            part = np.asarray(getattr(self.array, "oindex", self.array)[wanted])[back]
        part = part.transpose(self.axes)
        return part[:, None] if self.channel else part

    def __getstate__(self) -> dict[str, Any]:
        """For another process: an array of HDF5 is its file and its place there, since h5py pickles none."""
        if not hasattr(self.array, "file"):
            return vars(self)
        return {**vars(self), "array": None, "place": (self.array.file.filename, self.array.name)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "place" in state:
            import h5py

            file, name = state.pop("place")
            state["array"] = h5py.File(file, "r")[name]
        vars(self).update(state)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.empty(self.shape, dtype or self.dtype)
        for rows in blocks(self.shape):
            whole[rows] = self[rows]
        return whole

    def transpose(self, axes: Sequence[int]) -> Any:
        """Another order of the axes; read whole where examples do not come first in the file."""
        return OnDisk(self.array, axes, self.channel) if axes[0] == 0 else np.asarray(self).transpose(axes)


class Store(ABC):
    """N raw examples by position. `lazy`: each access reads and decodes, so worker processes pay off."""

    lazy: bool

    @abstractmethod
    def raw(self, index: Tensor) -> Tensor:
        """The examples at these positions as stored, (B, *shape): see `Grid`."""

    @abstractmethod
    def subset(self, index: Tensor) -> Store:
        """The examples at these positions, in this order, as a store."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Store:
        """The same values on a device, where they are in memory; itself where they are read lazily."""


class InMemory(Store):
    """Values as one tensor (N, *shape): a batch is one indexing operation on its device."""

    lazy = False

    def __init__(self, values: Tensor):
        self.values = values

    def raw(self, index: Tensor) -> Tensor:
        return self.values[index.to(self.values.device)]

    def subset(self, index: Tensor) -> InMemory:
        return InMemory(self.raw(index))

    def to(self, device: torch.device | str) -> InMemory:
        return InMemory(self.values.to(device))


class Mapped(Store):
    """Values in an array (N, *shape) of a file, memory-mapped or `OnDisk`; only the rows asked for are read."""

    lazy = True

    def __init__(self, values: Any, grid: Grid, rows: Tensor | None = None):
        self.values, self.grid = values, grid
        self.rows = torch.arange(len(values)) if rows is None else rows

    def raw(self, index: Tensor) -> Tensor:
        return self.grid.store(self.values[self.rows[index.cpu()].numpy()])

    def subset(self, index: Tensor) -> Mapped:
        return Mapped(self.values, self.grid, self.rows[index.cpu()])

    def to(self, device: torch.device | str) -> Mapped:
        return self


class Standardised(Store):
    """Rows of numbers of another store, (value - mean) / std when they are asked for."""

    lazy = True

    def __init__(self, rows: Store, mean: Tensor, std: Tensor):
        self.rows, self.mean, self.std = rows, mean, std

    def raw(self, index: Tensor) -> Tensor:
        return ((self.rows.raw(index) - self.mean) / self.std).float()

    def subset(self, index: Tensor) -> Standardised:
        return Standardised(self.rows.subset(index), self.mean, self.std)

    def to(self, device: torch.device | str) -> Standardised:
        return self


class Encoded(Store):
    """Pictures as paths or encoded bytes, decoded to one mode at each access. names: of the pictures, for errors."""

    lazy = True

    def __init__(
        self,
        encoded: Sequence[str | bytes],
        names: Sequence[str],
        mode: str,
        grid: Grid,
        rows: Tensor,
        upright: bool = True,
        size: tuple[int, int] | None = None,
    ):
        self.encoded, self.names, self.mode, self.grid, self.rows = encoded, names, mode, grid, rows
        self.upright, self.size = upright, size

    def raw(self, index: Tensor) -> Tensor:
        places = self.rows[index.cpu()].tolist()
        read = (decode(self.encoded[i], self.names[i], self.mode, self.upright, self.size) for i in places)
        return self.grid.store(np.stack([*read]))

    def subset(self, index: Tensor) -> Encoded:
        rows = self.rows[index.cpu()]
        return Encoded(self.encoded, self.names, self.mode, self.grid, rows, self.upright, self.size)

    def to(self, device: torch.device | str) -> Encoded:
        return self
