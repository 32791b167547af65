"""Folders: pictures with labels from folders or from a table beside them, or Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from diffrep.amounts import amount
from diffrep.data.albums import of_pictures
from diffrep.data.columns import Column, with_label, with_split
from diffrep.data.names import FILES, split_of, usual_column
from diffrep.data.pictures import SUFFIXES, UNREAD
from diffrep.data.raw import Raw, as_labels, keep
from diffrep.data.readers.csv_files import is_csv, read_csv
from diffrep.data.readers.recordings import is_recording, of_recordings
from diffrep.data.readers.tables import read_parquet
from diffrep.data.reading import Reading
from diffrep.errors import UserError, reason_of

TABLES = ("metadata", "labels")  # names of tables beside pictures
FOLDER = "folder:"


def read_folder(root: Path, kinds: str, reading: Reading, skip_bad: bool) -> Raw:
    """Parquet files, or pictures: flat, in class folders, below folders of splits, with metadata.csv or the like."""
    inside = {file: file.relative_to(root) for file in root.rglob("*")}  # paths are costly: each is taken apart once
    shown = {f: i.as_posix() for f, i in inside.items() if not any(name.startswith((".", "__")) for name in i.parts)}
    visible = sorted(shown, key=shown.__getitem__)
    files = [file for file in visible if file.suffix.lower() in SUFFIXES]
    beside = [file for file in visible if _is_table(file)]
    parquet = [f for f in visible if f.suffix.lower() == ".parquet" and not (files and f in beside)]
    if parquet:
        return read_parquet(parquet, str(root), root, reading, skip_bad)
    recorded = not files and any(is_recording(file) for file in visible)
    if recorded:
        files = [file for file in visible if is_recording(file)]
    if not files:
        raise UserError(f"{root} holds no pictures ({', '.join(sorted(SUFFIXES))}) and no Parquet files: give {kinds}.")
    reading = _unread(visible, beside, root, reading)
    ids = [shown[file] for file in files]
    split, depth = _splits(ids, root, reading)
    columns, missing, reading = _metadata(beside, root, ids, reading, skip_bad)
    if split is not None:
        reading = reading.decided(split="folders")
    else:
        split, reading = with_split(columns, f"the table beside {root}", reading)
    for dropped in reading.drop:
        columns.pop(dropped, None)
    labels, reading = _labels(columns, [id.split("/")[depth:-1] for id in ids], root, reading)
    factors = {c: values for c, values in columns.items() if c != reading.label and f"column {c}" != reading.split}
    if factors:
        reading = reading.guess("factors", tuple(factors))
    paths = [str(file) for file in files]
    values, kept, reading = (of_recordings if recorded else of_pictures)(paths, paths, skip_bad, reading)
    parts = tuple((path, 1) for path in paths)
    raw = Raw(values, reading, split, labels, None, ids, factors, parts=parts, skipped=missing)
    return keep(raw, kept, len(files))


def _is_table(file: Path) -> bool:
    stem = file.name.lower().split(".")[0]
    return stem in TABLES and (is_csv(file) or file.suffix.lower() in (".jsonl", ".parquet"))


def _unread(visible: Sequence[Path], beside: Sequence[Path], root: Path, reading: Reading) -> Reading:
    """The reading with a sentence about pictures and tables in the folder that are not read."""
    odd = [file for file in visible if file.suffix.lower() in UNREAD]
    if odd:
        kinds = ", ".join(sorted({file.suffix.lower() for file in odd}))
        reading = reading.noted(
            f"{root} has {amount(len(odd), 'picture')} of a kind that is not read ({kinds}): convert them to .png."
        )
    tables = [file for file in visible if (is_csv(file) or file.suffix.lower() == ".jsonl") and file not in beside]
    if tables:
        names = ", ".join(file.relative_to(root).as_posix() for file in tables[:3])
        reading = reading.noted(
            f"{names} in {root} is not read: call it metadata.csv, with a column file_name, if it holds labels."
        )
    return reading


def _splits(ids: list[str], root: Path, reading: Reading) -> tuple[np.ndarray | None, int]:
    """(N,) splits where folders at some depth are named so, None otherwise; and the depth of the folders below them.

    Folders that hold everything (photos/images/...) are skipped. UserError where some are splits and some are not.
    """
    folders = [id.split("/")[:-1] for id in ids]
    depth = 0
    while all(len(names) > depth for names in folders) and len({names[depth] for names in folders}) == 1:
        if split_of(folders[0][depth]) is not None:
            return None, depth + 1
        depth += 1
    tops = [names[depth] if len(names) > depth else "" for names in folders]
    named = {top: split_of(top) for top in set(tops)}
    asked = reading.label is not None and reading.label.startswith(FOLDER) and not reading.applied
    if asked or "train" not in named.values():
        return None, depth if len(set(tops)) > 1 else 0
    for id, top in zip(ids, tops, strict=True):
        if named[top] is None:
            raise UserError(
                f"{root / id} lies outside of train/, valid/ and test/, which the folder has: move it, or set "
                "data.label_column=folder:1 if these folders are classes."
            )
    return np.array([named[top] for top in tops]), depth + 1


def _labels(
    columns: dict[str, np.ndarray], folders: list[list[str]], root: Path, reading: Reading
) -> tuple[np.ndarray | None, Reading]:
    """The labels and the reading: from the label column, or from the names of folders at one depth."""
    if columns and not (reading.label or "").startswith(FOLDER):
        table = [Column(c, "word" if v.dtype.kind in "US" else "number", v) for c, v in columns.items()]
        reading = with_label(table, f"the table beside {root}", reading)
        if reading.label in columns:
            return as_labels(columns[reading.label], f"column {reading.label!r} of {root}"), reading
        if reading.label == "" and not any(guess.field == "label" for guess in reading.guesses):
            return None, reading
        if reading.label == "":
            reading = replace(reading, label=None, guesses=tuple(g for g in reading.guesses if g.field != "label"))
    if reading.label is None:
        several = len({names[0] for names in folders if names}) > 1
        reading = reading.guess("label", f"{FOLDER}1" if several else "")
    if not reading.label:
        return None, reading
    if not reading.label.startswith(FOLDER):
        if reading.applied:
            return None, reading
        raise UserError(
            f"there is no label column {reading.label!r}, and no column at all beside the examples: leave it out."
        )
    word = reading.label.removeprefix(FOLDER)
    if not word.isdigit() or int(word) < 1:
        raise UserError(
            f"data.label_column={reading.label} names no depth of folders, expected folder:1, folder:2, ..."
        )
    place = int(word) - 1
    labels = np.array([names[place] if len(names) > place else None for names in folders], object)
    return (labels if any(labels) else None), reading


def _metadata(
    tables: list[Path], root: Path, ids: list[str], reading: Reading, skip_bad: bool
) -> tuple[dict[str, np.ndarray], int, Reading]:
    """Columns of all tables beside the pictures, in the order of `ids`, with a hole where a file has no row; rows
    without a file."""
    rows: dict[str, dict[str, object]] = {}
    short = {id.rsplit(".", 1)[0]: id for id in ids}
    by_name: dict[str, str] = {}
    for id in ids:
        by_name.setdefault(id.split("/")[-1], id)
        by_name.setdefault(id.split("/")[-1].rsplit(".", 1)[0], id)
    present = set(ids)
    missing: list[tuple[Path, str]] = []
    for file in tables:
        table = _table(file, reading)
        key = usual_column(FILES, table.column_names)
        if key is None:
            raise UserError(f"{file} has no column file_name (it has {', '.join(table.column_names)}): add one.")
        folder = file.parent.relative_to(root).as_posix()
        for row in table.to_pylist():
            name = str(row.pop(key))
            full = name if folder == "." else f"{folder}/{name}"
            place = full if full in present else short.get(full) or by_name.get(name)
            if place is None:
                missing.append((file, full))
            else:
                rows[place] = row
    if missing and not skip_bad and not reading.applied:
        raise UserError(
            f"{root / missing[0][1]} is named in {missing[0][0].name} and does not exist: remove the row, or pass "
            "--skip-bad (skip_bad=True) to go on without it."
        )
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    columns = {name: _column([rows.get(id, {}).get(name) for id in ids]) for name in names}
    if len(columns) == 1 and reading.label is None and any(_stem(file) == "labels" for file in tables):
        reading = reading.guess("label", next(iter(columns)))
    return columns, len(missing), reading


def _stem(file: Path) -> str:
    return file.name.lower().split(".")[0]


def _table(file: Path, reading: Reading) -> pa.Table:
    try:
        if file.suffix.lower() == ".parquet":
            return pq.ParquetFile(file, page_checksum_verification=True).read()
        if file.suffix.lower() == ".jsonl":
            return pa.json.read_json(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read ({reason_of(error)}): write it anew.") from error
    return read_csv(file, Reading(delimiter=reading.delimiter, header=reading.header), FILES)[0]


def _column(values: list[object]) -> np.ndarray:
    """A column of one type: numbers with NaN for holes, or words with "" for holes."""
    if all(value is None or isinstance(value, (int, float)) for value in values):
        if None in values:
            return np.array([np.nan if value is None else value for value in values], float)
        return np.array(values)
    return np.array(["" if value is None else str(value) for value in values])
