"""Usual names of columns, arrays and splits, for all readers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

from diffrep.errors import UserError, unknown

EXAMPLES = (
    "x",
    "images",
    "image",
    "imgs",
    "img",
    "data",
    "counts",
    "features",
    "feats",
    "codes",
    "code",
    "embeddings",
    "embedding",
    "z",
    "inputs",
    "input",
    "arr_0",
)  # arrays of examples
FEATURES = ("features", "feats", "codes", "code", "embeddings", "embedding", "x", "z", "data", "arr_0")  # of any kind
PICTURES = ("image", "img", "images", "picture", "photo", "pixels")  # columns of pictures, the first before the others
LABELS = (
    "label",
    "labels",
    "y",
    "target",
    "targets",
    "class",
    "classes",
    "fine_label",
    "bulk_labels",
    "quality",
    "outcome",
    "species",
    "diagnosis",
    "variety",
)
IDS = ("id", "ids", "name", "names", "file_name", "barcode", "barcodes", "index")
INDEX = re.compile(r"|unnamed: \d+|__index_level_\d+__|level_0")  # names of an index that pandas wrote
FILES = ("file_name", "filename", "file", "image", "image_id", "image_name", "img", "path", "id", "name")
SPLITS = {split: split for split in ("train", "valid", "test")} | {
    "training": "train",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


def split_of(name: str) -> str | None:
    """ "train", "valid" or "test" where a file's or folder's name begins or ends with such a word.

    "test-00000-of-00001", "seg_train", "mnist_test", "Val"; numbers at the end do not count.
    """
    words = [w for w in re.split(r"[^a-z]+", PurePath(name).name.lower()) if w and w != "of"]
    splits = {SPLITS[w] for w in (words[0], words[-1]) if w in SPLITS} if words else set()
    return splits.pop() if len(splits) == 1 else None


def parted(name: str) -> tuple[str | None, str]:
    """("train", "images") of "train_images", "images_train" or "X_train"; (None, name) of what names no split."""
    first, last = name.partition("_"), name.rpartition("_")
    if first[2] and first[0].lower() in SPLITS:
        return SPLITS[first[0].lower()], first[2]
    if last[0] and last[2].lower() in SPLITS:
        return SPLITS[last[2].lower()], last[0]
    return None, name


def usual_column(words: Iterable[str], columns: Iterable[str]) -> str | None:
    """The name, as written, of the column that the first matching word names; upper and lower case are the same."""
    folded: dict[str, str] = {}
    for column in columns:
        folded.setdefault(column.lower(), column)
    return next((folded[word] for word in words if word in folded), None)


def required_column(name: str, columns: Iterable[str], what: str) -> str:
    """The name, if a column has it; UserError otherwise. what: the name of such columns in the error."""
    columns = list(columns)
    if not columns:
        raise UserError(f"there is no {what} {name!r}, and no column at all beside the examples: leave it out.")
    if name not in columns:
        raise unknown(what, name, columns)
    return name


def is_index(name: str) -> bool:
    """Is this the name of an index that pandas wrote as a column?"""
    return INDEX.fullmatch(name.lower()) is not None


def in_order(classes: Iterable[str]) -> list[str]:
    """Names of classes in the order in which they are numbered: as numbers where all of them are, else as words."""
    names = set(classes)
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
