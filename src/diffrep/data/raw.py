"""A data set as its source gives it, before it is cut into splits; and the words for columns that sources share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePath

import numpy as np
import torch
from torch import Tensor

from diffrep.data.values import Values
from diffrep.errors import UserError, unknown

LABELS = ("label", "labels", "y", "Y", "target", "targets", "class", "fine_label", "bulk_labels")
IDS = ("id", "ids", "name", "names", "file_name", "barcode", "barcodes", "index")
SPLITS = {split: split for split in ("train", "valid", "test")} | {
    "training": "train",
    "validation": "valid",
    "val": "valid",
}


@dataclass(frozen=True)
class Raw:
    """N examples of all splits together, in the order of the source.

    split: (N,) of "train", "valid", "test" where the source has its own. labels: (N,) integers or words, None where
    an example has none. skipped: files that could not be read.
    """

    values: Values
    split: np.ndarray | None = None
    labels: np.ndarray | None = None
    label_names: list[str] | None = None
    ids: list[str] | None = None
    factors: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: int = 0

    def classes(self) -> tuple[Tensor | None, list[str] | None]:
        """Labels (N,) int64 with their names: see `numbered`; None where no example has one."""
        return (None, None) if self.labels is None else numbered(self.labels, self.label_names)


def numbered(labels: np.ndarray, label_names: list[str] | None = None) -> tuple[Tensor | None, list[str] | None]:
    """Labels (N,) as `as_labels` gives them -> int64 with their names: names given are kept, others are the sorted
    values; -1 is unlabelled, and so are empty words, NaN and None."""
    present = np.array([label not in (None, "") and label == label and label != -1 for label in labels], bool)
    found = sorted(set(labels[present].tolist()))
    if not found:
        return None, None
    if label_names and all(isinstance(k, int) and 0 <= k < len(label_names) for k in found):
        place, names = {k: k for k in found}, label_names
    else:
        place, names = {k: i for i, k in enumerate(found)}, [str(k) for k in found]
    numbers = [place[k] if here else -1 for k, here in zip(labels.tolist(), present, strict=True)]
    return torch.tensor(numbers, dtype=torch.int64), list(names)


def keep(raw: Raw, kept: np.ndarray, total: int) -> Raw:
    """Everything beside the values, at the positions `kept` of `total`; the rest counts as skipped."""
    return replace(
        raw,
        split=None if raw.split is None else raw.split[kept],
        labels=None if raw.labels is None else raw.labels[kept],
        ids=None if raw.ids is None else [raw.ids[i] for i in kept],
        factors={name: column[kept] for name, column in raw.factors.items()},
        skipped=raw.skipped + total - len(kept),
    )


def label_column_of(columns: Iterable[str], wanted: str | None) -> str | None:
    """The column that holds the labels: the one asked for, or the first of the usual names; None without one."""
    columns = list(columns)
    if wanted is not None and not columns:
        raise UserError(f"there is no label column {wanted!r}, and no column at all beside the examples: leave it out.")
    if wanted is not None and wanted not in columns:
        raise unknown("label column", wanted, columns)
    return wanted or next((name for name in LABELS if name in columns), None)


def split_of(name: str) -> str | None:
    """ "train", "valid" or "test" where a file or folder name begins with such a word ("test-00000-of-00001")."""
    word = PurePath(name).name.lower().replace("_", "-").replace(".", "-").split("-")[0]
    return SPLITS.get(word)


def is_class_column(values: np.ndarray) -> bool:
    """Words or whole numbers: a column of other numbers is a quantity and no label."""
    if values.dtype.kind != "f":
        return True
    finite = values[np.isfinite(values)]
    return bool((finite == np.rint(finite)).all())


def as_labels(values: np.ndarray, name: str) -> np.ndarray:
    """A column of labels as Python objects: words, whole numbers, None where there is none."""
    if values.ndim != 1 or not is_class_column(values):
        raise UserError(f"{name} cannot be labels (shape {values.shape}, {values.dtype}), expected (N,) whole numbers.")
    if values.dtype.kind == "f":
        values = np.array([int(v) if np.isfinite(v) else None for v in values], object)
    return values.astype(object)
