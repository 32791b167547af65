"""Features from a file, not from a run: with labels and, where the file has them, splits."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from diffrep.data.columns import stacked
from diffrep.data.names import LABELS, SPLITS
from diffrep.errors import UserError, unknown

FEATURES = ("features", "codes", "code", "embeddings", "x", "z")  # names of the features in an .npz
KINDS = "a .npz, .npy or .parquet file"


@dataclass(frozen=True, eq=False)
class Features:
    """x (N, d), labels (N,) as written, the name of the labels, and the split (N,): "train", "valid" or "test"."""

    x: np.ndarray
    labels: np.ndarray
    label_name: str
    split: np.ndarray | None = None


def read(path: Path, labels: str | None = None, t: float | None = None) -> Features:
    """Features and labels of a file.

    `.npz`: features (or x, codes, ...) with labels (or y, ...) and, if it has one, split; or train_features,
    train_labels, test_features, ... `.parquet`: as `diffrep encode` writes it; t picks the column of that time. `.npy`:
    features. labels: a .npy file of them, or the name of a column or an array. UserError: what cannot be read, does not
    fit, or is missing.
    """
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in (".npz", ".npy", ".parquet"):
        there = "is none of these" if path.exists() else "does not exist"
        raise UserError(f"{path} {there}: give a run directory, or features as {KINDS}.")
    if t is not None and suffix != ".parquet":
        raise UserError(f"--t picks a column of a .parquet file, and {path.name} is a {suffix} file: leave it out.")
    columns, split = _of_parquet(path, t) if suffix == ".parquet" else _of_arrays(path)
    x = columns.pop("")
    given, called = _labels(columns, labels, path)
    if len(given) != len(x):
        raise UserError(f"{path} holds {len(x):,} features and there are {len(given):,} labels: give one for each.")
    if x.dtype.kind not in "biuf" or x.ndim < 2 or not np.isfinite(x).all():
        raise UserError(f"{path} holds {x.dtype} of shape {x.shape}, expected finite numbers (N, d): convert them.")
    return Features(x.reshape(len(x), -1), given, called, split)


def _of_parquet(path: Path, t: float | None) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    x = read_codes(path, "code" if t is None else f"code_t{t:.2f}").numpy()
    table = pq.ParquetFile(path)
    plain = [field.name for field in table.schema_arrow if not pa.types.is_nested(field.type)]
    columns = {name: column.to_numpy() for name, column in zip(plain, table.read(columns=plain).columns, strict=True)}
    return {**columns, "": x}, _split(columns.pop("split", None), path)


def _of_arrays(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The features under "", everything else under its name, and the splits."""
    try:
        content = np.load(path, allow_pickle=False)
        arrays = {"features": content} if isinstance(content, np.ndarray) else {name: content[name] for name in content}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0].rstrip(". ")
        raise UserError(f"{path} cannot be read ({reason}): save it anew with numpy.savez.") from error
    arrays, split = _joined(arrays, path)
    name = next((name for name in FEATURES if name in arrays), None)
    if name is None:
        raise UserError(
            f"{path} holds {', '.join(sorted(arrays)) or 'no arrays'}, expected features named {', '.join(FEATURES)}:"
            " rename the array."
        )
    split = _split(arrays.pop("split", None), path) if split is None else split
    x = arrays.pop(name)
    if split is not None and len(split) != len(x):
        raise UserError(f"{path} holds {len(x):,} features and {len(split):,} words of split: give one for each.")
    return {**arrays, "": x}, split


def _joined(arrays: dict[str, np.ndarray], path: Path) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """train_features, train_labels, test_features, ... (or features_train, ...) -> features, labels and splits."""
    by_split: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        first, last = name.partition("_"), name.rpartition("_")
        if first[0] in SPLITS and first[2]:
            by_split.setdefault(SPLITS[first[0]], {})[first[2]] = array
        elif last[2] in SPLITS and last[0]:
            by_split.setdefault(SPLITS[last[2]], {})[last[0]] = array
    if "train" not in by_split:
        return arrays, None
    shared = set.intersection(*(set(arrays_of) for arrays_of in by_split.values()))
    features = next((name for name in FEATURES if name in shared), None)
    if features is None:
        raise UserError(
            f"{path} holds {', '.join(sorted(arrays))}, expected features of one name in every split, such as"
            " train_features and test_features: rename the arrays."
        )
    return stacked(by_split, features, sorted(shared), f"{path}")


def _split(words: np.ndarray | None, path: Path) -> np.ndarray | None:
    if words is None:
        return None
    words = words.astype(str)
    if odd := sorted(set(words.tolist()) - set(SPLITS)):
        raise UserError(f"{path} has the split {odd[0]!r}, expected train, valid and test: rename it.")
    return np.array([SPLITS[word] for word in words])


def _labels(columns: dict[str, np.ndarray], labels: str | None, path: Path) -> tuple[np.ndarray, str]:
    if labels is not None and labels not in columns and labels.endswith(".npy"):
        try:
            return np.load(labels, allow_pickle=False), labels
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0].rstrip(". ")
            raise UserError(f"the labels {labels} cannot be read ({reason}): save them with numpy.save.") from error
    name = labels or next((name for name in LABELS if name in columns), None)
    if name is None:
        others = ", ".join(sorted(columns)) or "nothing"
        raise UserError(f"{path} has no labels beside its features ({others}): name a column or a file with --labels.")
    if name not in columns:
        raise unknown("label column", name, columns, "" if columns else f"{path} has no column at all.")
    return columns[name], name


def read_codes(path: Path, column: str = "code") -> Tensor:
    """Codes (n, d) of a .npy array, or of a column of a Parquet file; UserError where they are not finite."""
    fix = "give a .npy array (n, d) or a file of `diffrep encode`."
    try:
        if path.suffix == ".npy":
            codes = np.load(path, allow_pickle=False)
        else:
            codes = np.stack(pq.ParquetFile(path).read(columns=[column]).column(column).to_numpy())
    except (OSError, ValueError, KeyError, EOFError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path} holds no codes ({reason}); {fix}") from error
    if codes.ndim != 2 or codes.dtype.kind not in "iuf" or len(codes) == 0:
        raise UserError(f"{path} holds {codes.dtype} of shape {codes.shape}, which are no codes; {fix}")
    if not np.isfinite(codes).all():
        raise UserError(f"{path} holds codes that are NaN or infinite; remove them.")
    return torch.from_numpy(codes.astype(np.float32))
