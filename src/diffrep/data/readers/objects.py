"""Objects of Python: arrays, data frames, pairs with labels, dictionaries, data sets, lists of pictures."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence, Set, Sized
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset

from diffrep.amounts import amount
from diffrep.data.albums import of_pictures
from diffrep.data.raw import Raw, as_labels, is_class_column, is_target, keep
from diffrep.data.readers.arrays import of_arrays
from diffrep.data.readers.hub import of_datasets
from diffrep.data.readers.tables import Piece, of_tables
from diffrep.data.reading import Reading
from diffrep.data.values import of_array
from diffrep.errors import UserError

NAME = "the array"
HELD = ("1", "L", "LA", "I", "I;16", "I;16B", "P", "RGB", "RGBA", "F")  # modes of Pillow that PNG and TIFF hold


def of_object(source: Any, reading: Reading, skip_bad: bool) -> Raw:
    """Any of these as `Raw`. UserError: what cannot become examples of one shape."""
    if isinstance(source, tuple) and len(source) == 2 and not _has_dtype(source):
        return _pair(source[0], source[1], reading, skip_bad)
    if isinstance(source, tuple) and not _has_dtype(source):
        raise UserError(f"a tuple of {len(source)} was given, expected (examples, labels): give two.")
    if _is_frame(source):
        return of_tables([Piece(_arrow(source), NAME)], "the table", reading, skip_bad)
    if isinstance(source, pa.Table):
        return of_tables([Piece(source, NAME)], "the table", reading, skip_bad)
    if isinstance(source, Mapping) and not hasattr(source, "column_names"):
        arrays = {str(key): array(value) for key, value in source.items() if _is_array(value)}
        return of_arrays(arrays, "the dictionary", reading)
    if hasattr(source, "with_format"):
        return of_datasets(source, "the data set", reading, skip_bad)
    if isinstance(source, DataLoader):
        raise UserError("a DataLoader was given, which cuts examples into batches: give its dataset.")
    if isinstance(source, Dataset) or _is_series(source):
        return _of_items(source, reading, skip_bad)
    if isinstance(source, (list, tuple)) and source and all(isinstance(item, (str, Path)) for item in source):
        return _files([str(item) for item in source], reading, skip_bad)
    if isinstance(source, (list, tuple)) and source and all(isinstance(item, bytes) for item in source):
        return _encoded(source, reading, skip_bad)
    if isinstance(source, (list, tuple)) and source and all(hasattr(item, "getbands") for item in source):
        return _of_pillow(source, reading, skip_bad)
    if not _is_array(source):
        raise UserError(
            f"a {type(source).__name__} was given, expected an array, a tensor, a data frame, a pair (x, labels), a "
            "dictionary of arrays, a data set or a path: convert it."
        )
    made, reading = of_array(array(source), NAME, reading)
    return Raw(made, reading)


def array(values: Any) -> np.ndarray:
    """Values as one array; UserError for examples of several shapes and for masked values."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if hasattr(values, "toarray"):  # scipy.sparse
        values = values.toarray()
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise UserError("the array has masked values, expected all of them: fill them first.")
    if hasattr(values, "isna") and hasattr(values, "to_numpy"):  # pandas, whose missing values are None here
        values = values.astype(object).where(~values.isna(), None) if values.isna().any() else values
    try:
        made = np.asarray(values)
    except (ValueError, TypeError) as error:
        shapes = {np.shape(value) for value in values} if all(hasattr(value, "shape") for value in values) else set()
        pair = ", or (x, labels) as a tuple" if isinstance(values, list) and len(values) == 2 else ""
        reason = f"it holds the shapes {', '.join(map(str, sorted(shapes)))}" if shapes else str(error)
        raise UserError(f"the data cannot become one array ({reason}): give examples of one shape{pair}.") from error
    return _plain(made) if made.dtype.kind == "O" and made.ndim == 1 else made


def _plain(values: np.ndarray) -> np.ndarray:
    """Objects (N,) as numbers or words, where they are one of these; None where one is missing."""
    values = values.copy()
    values[[k for k, value in enumerate(values) if _is_missing(value)]] = None
    kinds = {type(value) for value in values if value is not None}
    if kinds and all(issubclass(kind, (int, float, np.number)) and kind is not bool for kind in kinds):
        return np.array([np.nan if value is None else float(value) for value in values])
    return values


def _is_missing(value: object) -> bool:
    """None, NaN, or the NA of pandas, which says neither yes nor no."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"


def _pair(x: object, y: object, reading: Reading, skip_bad: bool) -> Raw:
    labels = array(y)
    if (
        labels.ndim == 2
        and labels.shape[1] > 1
        and ((labels == 0) | (labels == 1)).all()
        and (labels.sum(1) == 1).all()
    ):
        labels = labels.argmax(1)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    raw = of_object(x, replace(reading, label="") if reading.label is None else reading, skip_bad)
    total = len(raw.values.digests)
    if labels.ndim != 1 or len(labels) != total:
        here = amount(len(labels), "label") if labels.ndim == 1 else f"labels of shape {labels.shape}"
        raise UserError(f"{amount(total, 'example')} came with {here}: give one label for each.")
    pair_reading = replace(raw.reading, label="the second of the pair") if raw.labels is None else raw.reading
    if not is_class_column(labels) or (reading.label is None and is_target(labels)):
        if labels.dtype.kind not in "iuf":
            raise UserError(
                f"the second of the pair cannot be labels ({labels.dtype}), expected words or whole numbers."
            )
        note = "The second of the pair holds quantities and no classes, so it is the factor 'y'."
        if is_class_column(labels):
            note += " If they are classes, give them as words: y.astype(str)."
        return replace(raw, reading=replace(pair_reading, label="").noted(note), factors={**raw.factors, "y": labels})
    return replace(raw, reading=pair_reading, labels=as_labels(labels, "the second of the pair"), label_names=None)


def _of_items(source: Any, reading: Reading, skip_bad: bool) -> Raw:
    """A data set of PyTorch, or another series of known length, whose items are x, or x and a label."""
    if not hasattr(source, "__len__"):
        raise UserError("the data set has no length, expected one with examples by position: list its items.")
    count = len(source)
    items = [*islice(source, count + 1)] if isinstance(source, Iterable) else [source[i] for i in range(count)]
    if len(items) != count:
        gave = len(items) if len(items) < count else "more"
        raise UserError(f"the data set says that it holds {amount(count, 'example')} and gave {gave}.")
    if items and isinstance(items[0], (tuple, list)):
        x, y = (_stacked([item[k] for item in items]) for k in (0, 1))
        return _pair(x, y, reading, skip_bad)
    return of_object(_stacked(items), reading, skip_bad)


def _stacked(values: Sequence) -> Any:
    if all(hasattr(value, "getbands") for value in values):
        return list(values)
    return array([array(value) for value in values])


def _files(paths: list[str], reading: Reading, skip_bad: bool) -> Raw:
    values, kept, reading = of_pictures(paths, paths, skip_bad, reading)
    ids = [Path(path).name for path in paths]
    return keep(Raw(values, reading, ids=ids), kept, len(paths))


def _of_pillow(pictures: Sequence, reading: Reading, skip_bad: bool) -> Raw:
    """Pictures of Pillow, each as the bytes of a PNG (TIFF where they are floats), which holds them without loss but
    for colour spaces that are read as RGB anyway."""
    encoded = []
    for picture in pictures:
        file = io.BytesIO()
        if picture.mode not in HELD:
            picture = picture.convert("RGBA" if picture.mode in ("PA", "La", "RGBa") else "RGB")
        picture.save(file, "TIFF" if picture.mode == "F" else "PNG")
        encoded.append(file.getvalue())
    return _encoded(encoded, reading, skip_bad)


def _encoded(encoded: Sequence[bytes], reading: Reading, skip_bad: bool) -> Raw:
    values, kept, reading = of_pictures(encoded, [f"picture {i}" for i in range(len(encoded))], skip_bad, reading)
    return keep(Raw(values, reading), kept, len(encoded))


def _is_frame(source: object) -> bool:
    return (hasattr(source, "columns") and hasattr(source, "to_records")) or hasattr(source, "to_arrow")


def _arrow(frame: Any) -> pa.Table:
    """A data frame (pandas, polars) as a table, without pandas' index."""
    if hasattr(frame, "to_arrow"):
        return frame.to_arrow()
    frame = frame.rename(columns=str)
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError) as error:  # a column of words beside numbers
        mixed = {c: frame[c].astype(str) for c in frame.columns if frame[c].dtype == object}
        try:
            return pa.Table.from_pandas(frame.assign(**mixed), preserve_index=False)
        except (pa.ArrowException, TypeError):
            raise UserError(
                f"the data frame cannot be read ({str(error).splitlines()[0]}): make each column one type."
            ) from error


def _has_dtype(source: object) -> bool:
    return hasattr(source, "dtype")


def _is_series(source: object) -> bool:
    """Something of known length that can be gone through, and no array."""
    goes_on = isinstance(source, Iterable) and isinstance(source, Sized)
    return goes_on and not _is_array(source) and not isinstance(source, (str, bytes, Mapping, Set))


def _is_array(source: object) -> bool:
    return hasattr(source, "__array__") or isinstance(source, (list, tuple, memoryview)) or hasattr(source, "toarray")
