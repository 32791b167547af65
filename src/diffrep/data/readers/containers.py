"""Arrays inside of HDF5 and Zarr: `file.h5:/path` of an array, or of a group that is read as an .npz, block by
block."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from diffrep.data.raw import Raw
from diffrep.data.readers.arrays import of_arrays
from diffrep.data.reading import Reading
from diffrep.data.stores import OnDisk
from diffrep.errors import UserError, reason_of

HDF5, ZARR = (".h5", ".hdf5", ".he5"), (".zarr",)
INNER = re.compile(r"(?P<path>.+\.(?:h5|hdf5|he5|zarr)):(?P<inner>.*)", re.IGNORECASE)


def path_and_inner(name: str) -> tuple[Path, str] | None:
    """("file.h5", "/path") of "file.h5:/path" and of "file.h5", inner path empty; None for another kind of source."""
    match = INNER.fullmatch(name)
    path = Path(match["path"] if match else name).expanduser()
    return (path, match["inner"] if match else "") if path.suffix.lower() in (*HDF5, *ZARR) and path.exists() else None


def read_container(path: Path, inner: str, reading: Reading) -> Raw:
    """Read the arrays at `inner`. UserError: the path, arrays of numbers or a package are missing, or a broken file."""
    name = f"{path}:{inner}" if inner else str(path)
    try:
        arrays = (_zarr if path.suffix.lower() in ZARR else _hdf5)(path, inner.strip("/"), name)
    except UserError:
        raise
    except Exception as error:  # each library raises its own
        raise UserError(f"{name} cannot be read ({reason_of(error)}): write it anew, or save it as .npy.") from error
    return of_arrays(arrays, name, reading)


def _hdf5(path: Path, inner: str, name: str) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path} needs more: pip install 'diffrep[hdf5]', or save it as .npy.") from error

    def opened(node: Any) -> Any:
        return np.asarray(node.asstr()[()]) if h5py.check_string_dtype(node.dtype) else _lazily(node)

    node: Any = h5py.File(path, "r")  # it is open as long as one of its arrays is used
    for key in filter(None, inner.split("/")):
        keys = list(node) if isinstance(node, h5py.Group) else []
        if key not in keys:
            raise _missing(name, key, keys)
        if isinstance(node.get(key, getlink=True), h5py.ExternalLink):
            raise UserError(f"{name} leads to another file, which is not read: name that file.")
        node = node[key]
    own = {key: node.get(key, getlink=True) for key in node} if isinstance(node, h5py.Group) else {}
    inside = {key: node[key] for key, link in own.items() if not isinstance(link, h5py.ExternalLink)}
    return _arrays(node, inside, lambda one: isinstance(one, h5py.Dataset), opened, name)


def _zarr(path: Path, inner: str, name: str) -> dict[str, Any]:
    try:
        import zarr
    except ImportError as error:
        raise UserError(f"{path} needs more: pip install 'diffrep[zarr]', or save it as .npy.") from error
    node: Any = zarr.open(str(path), mode="r")
    for key in filter(None, inner.split("/")):
        keys = sorted(node.keys()) if hasattr(node, "keys") else []
        if key not in keys:
            raise _missing(name, key, keys)
        node = node[key]
    inside = dict(node.members()) if hasattr(node, "members") else {}
    return _arrays(node, inside, lambda one: isinstance(one, zarr.Array), _lazily, name)


def _lazily(array: Any) -> Any:
    """An array of several axes as it lies in its file, a column in memory."""
    return OnDisk(array) if len(array.shape) > 1 and array.dtype.kind in "biuf" else np.asarray(array[()])


def _arrays(
    node: Any,
    inside: dict[str, Any],
    is_array: Callable[[Any], bool],
    opened: Callable[[Any], Any],
    name: str,
) -> dict[str, Any]:
    """The array that `node` is, or the arrays of a group. UserError: none holds numbers."""
    if is_array(node):
        return {"x": opened(node)}
    arrays = {key: opened(one) for key, one in inside.items() if is_array(one)}
    arrays = {key: a.astype(str) if a.dtype.kind in "OST" else a for key, a in arrays.items()}
    if not any(a.dtype.kind in "biuf" and a.ndim for a in arrays.values()):
        shown = ", ".join(sorted(inside)) or "nothing"
        raise UserError(
            f"{name} holds {shown} and no array of numbers: name one inside of it, such as file.h5:/images."
        )
    return arrays


def _missing(name: str, key: str, keys: list[str]) -> UserError:
    return UserError(
        f"there is no {key!r} on the way to {name}, only {', '.join(sorted(keys)) or 'nothing'}: name one."
    )
