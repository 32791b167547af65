"""Sources: a name, a folder, a file or an array -> `Raw`."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch

from diffrep.data.albums import of_pictures
from diffrep.data.factors import digits_factors
from diffrep.data.pictures import SUFFIXES
from diffrep.data.raw import IDS, LABELS, SPLITS, Raw, as_labels, is_class_column, keep, label_column_of
from diffrep.data.tables import Part, csv_table, of_tables, read_csv, read_parquet
from diffrep.data.values import of_array
from diffrep.errors import UserError, unknown

ARRAYS = ("x", "X", "images", "image", "data", "counts", "features", "arr_0")  # names of the examples in an .npz
KINDS = "a folder of pictures or Parquet files, or a picture, .parquet, .npy, .npz, .csv or .tsv file"


def read(source: object, *, label_column: str | None, skip_bad: bool) -> tuple[str, Raw]:
    """(name, data) of any source that `diffrep.data.load` takes."""
    if isinstance(source, (str, Path)):
        return str(source), _read_name(str(source), label_column, skip_bad)
    if isinstance(source, tuple) and len(source) == 2:
        values, labels = (_array(part) for part in source)
        if len(values) != len(labels):
            raise UserError(f"there are {len(values):,} examples and {len(labels):,} labels: give one label for each.")
        return "array", Raw(of_array(values, "the array"), labels=as_labels(labels, "the second of the pair"))
    return "array", Raw(of_array(_array(source), "the array"))


def _read_name(name: str, label_column: str | None, skip_bad: bool) -> Raw:
    path = Path(name).expanduser()
    if name in INSIDE:
        if label_column is not None:
            raise UserError(f"{name} has labels of its own and no column {label_column!r}: leave label_column out.")
        return INSIDE[name]()
    if path.is_dir():
        return _read_folder(path, label_column, skip_bad)
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            return read_parquet([path], name, label_column, skip_bad)
        if suffix in (".csv", ".tsv"):
            return read_csv(path, label_column)
        if suffix in (".npy", ".npz"):
            return _read_arrays(path, label_column)
        if suffix in SUFFIXES:
            return Raw(of_pictures([str(path)], [name], skip_bad)[0], ids=[path.name])
        raise UserError(f"{name} is a {suffix or 'nameless'} file, expected {KINDS}.")
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and not path.suffix and not path.parent.exists():
        return _read_hub(name, label_column, skip_bad)
    if get_close_matches(name.lower(), INSIDE, cutoff=0.7):
        raise unknown("data set", name, INSIDE, hint=f"Otherwise give {KINDS}.")
    raise UserError(
        f"there is no file or folder {name!r}: give {' or '.join(INSIDE)}, {KINDS}, or a hub name such as ylecun/mnist."
    )


def _digits() -> Raw:
    """1,797 handwritten digits of 8 x 8 with grey levels 0 to 16, inside scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    names = [str(k) for k in range(10)]
    return Raw(of_array(digits.images, "digits", bins=17), labels=digits.target.astype(object), label_names=names)


INSIDE: dict[str, Callable[[], Raw]] = {"digits": _digits, "digits-factors": digits_factors}  # no file needed


def _array(values: object) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UserError(f"the data cannot become one array ({error}): give examples of one shape.") from error


def _read_arrays(path: Path, label_column: str | None) -> Raw:
    """`.npy`: the examples. `.npz`: examples, labels, names of classes, ids and factors by the names of its arrays."""
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = {name: content[name] for name in content} if isinstance(content, Mapping) else {"x": content}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        reason = str(error).splitlines()[0].rstrip(". ")
        raise UserError(f"{path} cannot be read ({reason}): save it anew with numpy.save or numpy.savez.") from error
    arrays = {name: a[:, 0] if a.ndim == 2 and a.shape[1] == 1 else a for name, a in arrays.items()}
    split = None
    if "x_train" in arrays:
        arrays, split = _joined_splits(arrays, path)
    many = [name for name, array in arrays.items() if array.ndim > 1]
    main = next((name for name in ARRAYS if name in many), many[0] if len(many) == 1 else None)
    if main is None:
        raise UserError(
            f"{path} holds {', '.join(arrays) or 'no arrays'}, expected examples named x, images, data, counts or "
            "features: rename the array."
        )
    values = arrays[main]
    _same_length(arrays, main, path)
    columns = {name: a for name, a in arrays.items() if a.ndim == 1 and len(a) == len(values) and name != main}
    label = label_column_of(columns, label_column)
    if label and not label_column and not is_class_column(columns[label]):
        label = None
    row_names = next((name for name in IDS if name in columns and name != label), None)
    called = [f"{label}_names", f"{label.rstrip('s')}_names", "label_names", "class_names"] if label else []
    class_names = next((arrays[name].astype(str).tolist() for name in called if name in arrays), None)
    return Raw(
        of_array(values, str(path)),
        split,
        as_labels(columns[label], f"{label!r} of {path}") if label else None,
        class_names,
        columns[row_names].astype(str).tolist() if row_names else None,
        {name: column for name, column in columns.items() if name not in (label, row_names)},
    )


def _joined_splits(arrays: dict[str, np.ndarray], path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """x_train, y_train, x_test, ... -> x, y and the split of each row."""
    parts = [name for name in SPLITS if f"x_{name}" in arrays]
    if len({arrays[f"x_{part}"].shape[1:] for part in parts}) > 1:
        raise UserError(f"the splits of {path} hold examples of different shapes, expected one: reshape them.")
    columns = [column for column in "xy" if all(f"{column}_{part}" in arrays for part in parts)]
    joined = {column: np.concatenate([arrays[f"{column}_{part}"] for part in parts]) for column in columns}
    return joined, np.repeat([SPLITS[part] for part in parts], [len(arrays[f"x_{part}"]) for part in parts])


def _same_length(arrays: dict[str, np.ndarray], main: str, path: Path) -> None:
    for name in set(arrays) & set(LABELS):
        if len(arrays[name]) != len(arrays[main]):
            raise UserError(
                f"{path} holds {len(arrays[main]):,} examples and {len(arrays[name]):,} {name}: give one for each."
            )


def _read_folder(root: Path, label_column: str | None, skip_bad: bool) -> Raw:
    """Parquet files, or pictures: flat, in class folders, below train/, valid/ (val/) and test/, with metadata.csv."""
    visible = sorted(
        (f for f in root.rglob("*") if not any(part.startswith((".", "__")) for part in f.relative_to(root).parts)),
        key=lambda file: file.relative_to(root).as_posix(),
    )
    parquet = [file for file in visible if file.suffix.lower() == ".parquet"]
    if parquet:
        return read_parquet(parquet, str(root), label_column, skip_bad)
    files = [file for file in visible if file.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(f"{root} holds no pictures ({', '.join(sorted(SUFFIXES))}) and no Parquet files: give {KINDS}.")
    ids = [file.relative_to(root).as_posix() for file in files]
    split = _folder_splits(ids, root)
    classes = [id.split("/")[1 if split is not None else 0 : -1] for id in ids]
    labels: np.ndarray | None = np.array([parts[0] if parts else None for parts in classes], object)
    columns, missing = _metadata([file for file in visible if file.name == "metadata.csv"], root, ids, skip_bad)
    label = label_column_of(columns, label_column)
    if label:
        labels = as_labels(columns.pop(label), f"column {label!r} of metadata.csv")
    elif len({parts[0] for parts in classes if parts}) < 2:
        labels = None
    values, kept = of_pictures([str(file) for file in files], [str(file) for file in files], skip_bad)
    return keep(Raw(values, split, labels, None, ids, columns, skipped=missing), kept, len(files))


def _folder_splits(ids: list[str], root: Path) -> np.ndarray | None:
    tops = [id.split("/")[0] if "/" in id else "" for id in ids]
    if "train" not in {SPLITS.get(top.lower()) for top in tops}:
        return None
    for id, top in zip(ids, tops, strict=True):
        if top.lower() not in SPLITS:
            raise UserError(f"{root / id} lies outside of train/, valid/ and test/, which the folder has: move it.")
    return np.array([SPLITS[top.lower()] for top in tops])


def _metadata(tables: list[Path], root: Path, ids: list[str], skip_bad: bool) -> tuple[dict[str, np.ndarray], int]:
    """Columns of all metadata.csv, in the order of `ids`, with a hole where a file has no row; rows without a file."""
    rows: dict[str, dict[str, object]] = {}
    for file in tables:
        table = csv_table(file)
        if "file_name" not in table.column_names:
            raise UserError(f"{file} has no column file_name (it has {', '.join(table.column_names)}): add one.")
        folder = file.parent.relative_to(root).as_posix()
        for row in table.to_pylist():
            name = str(row.pop("file_name"))
            rows[name if folder == "." else f"{folder}/{name}"] = row
    missing = sorted(set(rows) - set(ids))
    if missing and not skip_bad:
        raise UserError(
            f"{root / missing[0]} is named in metadata.csv and does not exist: remove the row, or pass --skip-bad "
            "(skip_bad=True) to go on without it."
        )
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    columns = {name: _column([rows.get(id, {}).get(name) for id in ids]) for name in names}
    return columns, len(missing)


def _column(values: list[object]) -> np.ndarray:
    """A column of one type: numbers with NaN for holes, or words with "" for holes."""
    if all(value is None or isinstance(value, (int, float)) for value in values):
        if None in values:
            return np.array([np.nan if value is None else value for value in values], float)
        return np.array(values)
    return np.array(["" if value is None else str(value) for value in values])


def _read_hub(name: str, label_column: str | None, skip_bad: bool) -> Raw:
    """A data set of the Hugging Face hub through `datasets` (extra `hub`)."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"there is no file or folder {name!r}, and a hub data set needs more: pip install 'diffrep[hub]'."
        ) from error
    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # the hub's client raises its own, its network's and its file system's errors
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise UserError(
            f"there is no file or folder {name!r}, and the hub does not give a data set of that name ({reason}): "
            "check the name and the connection."
        ) from error
    parts = []
    for split, data in splits.items():
        table = data.with_format("arrow")[:].replace_schema_metadata(data.features.arrow_schema.metadata)
        parts.append(Part(table, f"{name} {split}", SPLITS.get(split)))
    return of_tables(parts, name, label_column, skip_bad)
