"""Arrays by name, of an .npz or a dictionary: examples, labels, splits, names of rows and factors."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffrep.amounts import amount
from diffrep.data.columns import stacked, with_split
from diffrep.data.names import EXAMPLES, IDS, LABELS, parted, required_column, usual_column
from diffrep.data.raw import Raw, as_labels, is_class_column, is_target, quantity_as_classes
from diffrep.data.reading import Reading
from diffrep.data.values import of_array
from diffrep.errors import UserError, reason_of

SPRITES = ("color", "shape", "scale", "orientation", "pos_x", "pos_y")  # of dSprites, in its order
SPARSE = {"format", "shape", "data"}  # what scipy.sparse.save_npz writes
BROKEN = (
    OSError, ValueError, EOFError, KeyError, TypeError, OverflowError, SyntaxError, NotImplementedError, RuntimeError,
    struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip  # what NumPy raises at a file that is not whole, or not one of arrays


def read_arrays(path: Path, reading: Reading) -> Raw:
    """`.npy`: the examples. `.npz`: see `of_arrays`. Nothing is unpickled: an array of objects is left out."""
    arrays, unread = opened(path)
    if unread:
        reading = reading.noted(
            f"{path} holds {', '.join(unread)}, which cannot be read without unpickling: left out. Save words with"
            " astype(str)."
        )
    return of_arrays(arrays, str(path), reading)


def opened(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of a file and the names of those that cannot be read; UserError where none can."""
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
    except BROKEN as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, Mapping):
        return {"x": content}, []
    if set(content) >= SPARSE:
        import scipy.sparse

        return {"x": scipy.sparse.load_npz(path).toarray()}, []
    arrays: dict[str, np.ndarray] = {}
    unread, first = [], None
    for name in content:
        try:
            arrays[name] = content[name]
        except BROKEN as error:
            unread.append(name)
            first = first or error
    if first is not None and not any(array.ndim > 1 for array in arrays.values()):
        raise _unreadable(path, first) from first
    return arrays, unread


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} cannot be read ({reason_of(error)}): save it anew with numpy.save or numpy.savez.")


def of_arrays(arrays: dict[str, np.ndarray], name: str, reading: Reading) -> Raw:
    """Examples named x, images, data, ... with labels, ids, class names, splits and factors; x_train or train_x, ..."""
    alone = [key for key, a in arrays.items() if a.ndim == 2 and a.shape[1] == 1 and key.lower() != "x"]
    arrays = arrays | {key: np.asarray(arrays[key])[:, 0] for key in alone}
    arrays, split = joined(arrays, name)
    main = _main(arrays, name, reading)
    values = arrays[main]
    if len(arrays) > 1 and reading.picture is None:
        reading = reading.guess("picture", main)
    beside = {
        key: np.asarray(a) for key, a in arrays.items() if key != main and 1 <= a.ndim <= 2 and len(a) == len(values)
    }
    for key in arrays:
        if key.lower() in LABELS and key != main and arrays[key].ndim and len(arrays[key]) != len(values):
            raise UserError(
                f"{name} holds {amount(len(values), 'example')} and {len(arrays[key]):,} {key}: give one for each."
            )
    for dropped in reading.drop:
        required_column(dropped, arrays, "array to drop")
        beside.pop(dropped, None)
    columns, reading = _flattened(beside, name, reading)
    if split is None:
        split, reading = with_split(columns, name, reading)
    else:
        reading = reading.decided(split="arrays")
    columns = {key: a for key, a in columns.items() if f"column {key}" != reading.split}
    label, reading = _label(columns, name, reading)
    row_names = usual_column(IDS, [key for key in columns if key != label])
    if row_names and reading.ids is None:
        reading = reading.guess("ids", row_names)
    called = (
        [f"{label}_names", f"{label.rstrip('s')}_names", "label_names", "class_names", "target_names"] if label else []
    )
    class_names = next((arrays[key].astype(str).tolist() for key in called if key in arrays), None)
    factors = {key: a for key, a in columns.items() if key not in (label, row_names)}
    if factors:
        reading = reading.guess("factors", tuple(factors))
    made, reading = of_array(values, name, reading)
    labels = as_labels(columns[label], f"{label!r} of {name}") if label else None
    ids = columns[row_names].astype(str).tolist() if row_names else None
    return Raw(made, reading, split, labels, class_names, ids, factors)


def _main(arrays: Mapping[str, np.ndarray], name: str, reading: Reading) -> str:
    """The name of the examples."""
    if reading.picture is not None and (reading.picture in arrays or not reading.applied):
        return required_column(reading.picture, arrays, "array")
    many = [key for key, array in arrays.items() if array.ndim > 1]
    if len(arrays) == 1:
        return next(iter(arrays))
    main = usual_column(EXAMPLES, many)
    if main is None:
        free = [key for key in many if key.lower() not in LABELS]
        main = free[0] if len(free) == 1 else many[0] if len(many) == 1 else None
    if main is None:
        raise UserError(
            f"{name} holds {', '.join(arrays) or 'no arrays'}, expected examples named x, images, data, counts or "
            "features: rename the array, or name it with data.column."
        )
    return main


def joined(arrays: dict[str, np.ndarray], name: str) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """x_train, y_train, x_test, ... (or train_images, ...) -> x, y and the split of each row; others as they are."""
    by_split: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        split, rest = parted(key)
        if split is not None and array.ndim:
            by_split.setdefault(split, {})[rest.lower()] = array
    if "train" not in by_split or usual_column(EXAMPLES, by_split["train"]) is None:
        return arrays, None
    shared = [key for key in by_split["train"] if all(key in arrays_of for arrays_of in by_split.values())]
    main = usual_column(EXAMPLES, shared)
    if main is None:
        raise UserError(
            f"{name} holds {', '.join(sorted(arrays))}, expected examples of one name in every split, such as"
            " train_images and test_images: rename the arrays."
        )
    others = {key: array for key, array in arrays.items() if parted(key)[0] is None}
    whole, split_of_row = stacked(by_split, main, shared, name)
    return {**others, **whole}, split_of_row


def _flattened(arrays: Mapping[str, np.ndarray], name: str, reading: Reading) -> tuple[dict[str, np.ndarray], Reading]:
    """Columns (N,): arrays (N, k) of few numbers become k columns, labels that are one in k become classes."""
    columns: dict[str, np.ndarray] = {}
    sprites = {"latents_values", "latents_classes"} <= set(arrays)
    for key, array in arrays.items():
        if array.ndim == 1:
            columns[key] = array
        elif array.ndim == 2 and array.shape[1] <= 64 and array.dtype.kind in "biuf":
            if key == "latents_classes" and sprites:
                continue  # the same as the values
            ones = key.lower() in LABELS and bool(((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all())
            if ones:
                columns[key] = array.argmax(1)
                continue
            if key.lower() in LABELS:
                reading = reading.noted(
                    f"{key!r} of {name} holds {array.shape[1]} numbers an example: factors, no classes."
                )
            names = SPRITES if sprites and array.shape[1] == len(SPRITES) else None
            columns |= {names[i] if names else f"{key}_{i}": array[:, i] for i in range(array.shape[1])}
    return columns, reading


def _label(columns: Mapping[str, np.ndarray], name: str, reading: Reading) -> tuple[str | None, Reading]:
    """The name of the labels, and the reading with it."""
    if reading.label and not reading.applied:
        label = required_column(reading.label, columns, "label column")
        if not is_class_column(columns[label]):
            raise UserError(
                f"{label!r} of {name} holds quantities, which are no classes: leave it out, it is a factor."
            )
        return label, reading.noted(*quantity_as_classes(columns[label], label, name))
    if reading.label and reading.label in columns:
        return reading.label, reading
    if reading.label == "":
        return None, reading
    usual = usual_column(LABELS, columns)
    if usual is not None and (not is_class_column(columns[usual]) or is_target(columns[usual])):
        doubt = (
            f"{usual!r} of {name} holds quantities and no classes, so it is a factor: `diffrep probe --labels {usual}`"
            " regresses on it."
        )
        return None, reading.guess("label", "", doubt)
    if reading.applied and usual is not None:
        return usual, replace(reading, label=usual)
    return usual, reading.guess("label", usual or "")
