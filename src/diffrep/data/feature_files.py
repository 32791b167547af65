"""Features that are no run's: a file of them, with labels and, where it has them, splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from diffrep.amounts import amount
from diffrep.data.columns import chosen
from diffrep.data.names import FEATURES, LABELS, SPLITS, is_index, usual_column
from diffrep.data.readers.arrays import BROKEN, joined, opened
from diffrep.data.readers.csv_files import TEXTS, is_text, read_csv
from diffrep.data.readers.tables import as_column, as_numbers
from diffrep.data.reading import Reading
from diffrep.errors import UserError, reason_of, unknown

LABEL_FILES = (".npy", ".parquet", *TEXTS)
KINDS = "a .npz, .npy, .parquet, .csv, .tsv or .txt file"


@dataclass(frozen=True, eq=False)
class Features:
    """x (N, d), labels (N,) as they were written, what these are called, (N,) of "train", "valid", "test"; and what is
    to be said of how they were found."""

    x: np.ndarray
    labels: np.ndarray
    label_name: str
    split: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Found:
    """Features, and every column beside them by its name; label: the column that looks like one of labels."""

    x: np.ndarray
    columns: Mapping[str, np.ndarray]
    split: np.ndarray | None = None
    label: str | None = None
    notes: tuple[str, ...] = ()


def read(path: Path, labels: str | None = None, t: float | None = None) -> Features:
    """Features and labels of a file.

    `.npz`: features (or embeddings, X, codes, ..., arr_0) with labels (or y, ..., arr_1) and, if it has one, split; or
    train_features, train_labels, test_features, ... `.parquet`: as `diffrep encode` writes it, where t picks the column
    of that time; else a column of lists (embedding), else all columns of numbers; so is `.csv`. `.npy`: features.
    labels: a file of them (.npy, .csv or .parquet), or the name of a column or an array; (N, 1) or one in k will do.
    UserError: what cannot be read, does not fit, or is missing.
    """
    suffix = path.suffix.lower()
    if not path.is_file() or not (suffix in (".npz", ".npy", ".parquet") or is_text(path)):
        there = "is none of these" if path.exists() else "does not exist"
        raise UserError(f"{path} {there}: give a run directory, or features as {KINDS}.")
    if t is not None and suffix != ".parquet":
        raise UserError(f"--t picks a column of a .parquet file, and {path.name} is a {suffix} file: leave it out.")
    if suffix in (".npz", ".npy"):
        file = _of_arrays(path, labels)
    else:
        file = _of_table(_table(path), path, labels, t)
    given, called = _labels(file, labels, path)
    x = file.x
    if len(given) != len(x):
        raise UserError(
            f"{path} holds {amount(len(x), 'row')} of features and {amount(len(given), 'label')}: give one for each."
        )
    if file.split is not None and len(file.split) != len(x):
        raise UserError(
            f"{path} holds {amount(len(x), 'row')} of features and a split of {len(file.split):,}: give one for each."
        )
    if x.dtype.kind not in "biuf" or x.ndim < 2:
        raise UserError(f"{path} holds {x.dtype} of shape {x.shape}, expected finite numbers (N, d): convert them.")
    x = x.reshape(len(x), -1)
    if not (whole := np.isfinite(x)).all():
        rows = int((~whole.all(1)).sum())
        raise UserError(
            f"{path} holds {amount(int((~whole).sum()), 'NaN or infinite number')} in {rows:,} of"
            f" {amount(len(x), 'row')}, expected finite features: fill them, or leave these rows out."
        )
    return Features(x, given, called, file.split, file.notes)


def _of_table(table: pa.Table, path: Path, labels: str | None, t: float | None) -> _Found:
    """A column of lists, by its name or because it is the only one; else every column of numbers."""
    columns = {name: as_column(table, name) for name in table.column_names}
    values = {name: column.values for name, column in columns.items() if column.values is not None}
    split = next((name for name in values if name.lower() == "split"), None)
    words = None if split is None else _split(values.pop(split), path)
    lists = [name for name, column in columns.items() if column.kind == "list"]
    code = f"code_t{t:.2f}" if t is not None else "code" if "code" in lists else usual_column(FEATURES, lists)
    if t is not None and code not in columns:
        raise UserError(
            f"{path} holds no codes of t = {t:.2f} (it has {', '.join(lists) or 'no lists'}): leave --t out."
        )
    if code is None and len(lists) > 1:
        known = ", ".join(FEATURES[:6])
        raise UserError(
            f"{path} holds the lists {', '.join(lists)}, expected one of features, named {known}: rename it."
        )
    if code is not None or lists:
        code = code or lists[0]
        usual = usual_column(LABELS, values)
        return _Found(as_numbers(table.column(code), columns[code], f"column {code!r} of {path}"), values, words, usual)
    beside = [column for name, column in columns.items() if name != split]
    asked = labels if labels in values else None
    reading = chosen(beside, str(path), Reading(label=asked))
    named = reading.features or ()
    if not named:
        raise UserError(
            f"{path} holds no codes: expected a column of lists ({', '.join(FEATURES[:6])}, ...) or columns of numbers,"
            f" and it has {', '.join(table.column_names)}."
        )
    x = np.column_stack([as_numbers(table.column(c), columns[c], f"column {c!r} of {path}") for c in named])
    notes: tuple[str, ...] = ()
    if reading.label and not asked and reading.label.lower() not in LABELS:
        notes = (f"Column {reading.label!r}, the only one of words, was taken for the labels: --labels names another.",)
    label = reading.label or next((name for name in reading.factors or () if name.lower() in LABELS), None)
    return _Found(x, values, words, label, notes)


def _table(path: Path) -> pa.Table:
    if path.suffix.lower() != ".parquet":
        return read_csv(path, Reading())[0]
    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({reason_of(error)}): write it anew.") from error


def _of_arrays(path: Path, labels: str | None) -> _Found:
    """The features, everything else under its name, and the splits."""
    arrays, unread = opened(path)
    if path.suffix.lower() == ".npy":
        return _Found(np.asarray(next(iter(arrays.values()))), {})
    arrays, split = joined(arrays, str(path))
    name = usual_column(FEATURES, [key for key, array in arrays.items() if array.ndim and key not in (labels, "arr_1")])
    if name is None:
        held = ", ".join(sorted([*arrays, *unread])) or "no arrays"
        raise UserError(f"{path} holds {held}, expected features named {', '.join(FEATURES)}: rename the array.")
    x = arrays.pop(name)
    word = next((key for key in arrays if key.lower() == "split"), None)
    if split is None and word is not None:
        split = _split(arrays.pop(word), path)
    lost = usual_column([labels] if labels else LABELS, unread)
    if lost is not None:
        raise UserError(
            f"{lost!r} of {path} holds objects, which cannot be read without unpickling: save words as str,"
            " labels.astype(str)."
        )
    return _Found(
        x, arrays, split, usual_column(LABELS, arrays) or usual_column(["arr_1"], arrays if name == "arr_0" else [])
    )


def _split(words: np.ndarray, path: Path) -> np.ndarray:
    folded = [str(word).lower() for word in words.tolist()]
    for word, written in zip(folded, words.tolist(), strict=True):
        if word not in SPLITS:
            raise UserError(f"{path} has the split {written!r}, expected train, valid and test: rename it.")
    return np.array([SPLITS[word] for word in folded])


def _labels(file: _Found, labels: str | None, path: Path) -> tuple[np.ndarray, str]:
    """The labels (N,), and what they are called."""
    if labels is not None and labels not in file.columns and labels.lower().endswith(LABEL_FILES):
        return _single(_label_file(Path(labels)), labels, path), labels
    name = labels or file.label
    if name is None:
        known = ", ".join(sorted(file.columns)) or "nothing"
        raise UserError(f"{path} has no labels beside its features ({known}): name a column or a file with --labels.")
    if name not in file.columns:
        raise unknown("label column", name, file.columns, "" if file.columns else f"{path} has no column at all.")
    return _single(file.columns[name], name, path), name


def _label_file(path: Path) -> np.ndarray:
    """(N,) or (N, k) of a file that holds labels and nothing else but an index."""
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
    except BROKEN as error:
        raise UserError(f"the labels {path} cannot be read ({reason_of(error)}): save them with numpy.save.") from error
    table = _table(path)
    columns = {name: as_column(table, name).values for name in table.column_names if not is_index(name)}
    name = usual_column(LABELS, columns) or (next(iter(columns)) if len(columns) == 1 else None)
    values = None if name is None else columns[name]
    if values is None:
        raise UserError(f"the labels {path} are {', '.join(columns) or 'no column'}, expected one column of them.")
    return values


def _single(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Labels as (N,): of (N, 1), or of (N, k) that are one in k."""
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    if (
        values.ndim == 2
        and values.dtype.kind in "biuf"
        and np.isin(values, (0, 1)).all()
        and (values.sum(1) == 1).all()
    ):
        return values.argmax(1)
    if values.ndim != 1:
        raise UserError(f"{name!r} of {path} has shape {values.shape}, expected one label for each example, (N,).")
    return values


def read_codes(path: Path, column: str = "code") -> Tensor:
    """Codes (n, d) of a .npy array, or of a column of a Parquet file; UserError where they are not finite."""
    fix = "give a .npy array (n, d) or a file of `diffrep encode`."
    try:
        if path.suffix == ".npy":
            codes = np.load(path, allow_pickle=False)
        else:
            codes = np.stack(
                pq.ParquetFile(path, page_checksum_verification=True).read(columns=[column]).column(column).to_numpy()
            )
    except (*BROKEN, pa.ArrowException) as error:
        raise UserError(f"{path} holds no codes ({reason_of(error)}); {fix}") from error
    if codes.ndim != 2 or codes.dtype.kind not in "iuf" or len(codes) == 0:
        raise UserError(f"{path} holds {codes.dtype} of shape {codes.shape}, which are no codes; {fix}")
    if not np.isfinite(codes).all():
        raise UserError(f"{path} holds codes that are NaN or infinite; remove them.")
    return torch.from_numpy(codes.astype(np.float32))
