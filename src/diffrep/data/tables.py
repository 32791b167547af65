"""Arrow tables, from Parquet, CSV or a hub: encoded pictures with labels, or rows of numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from diffrep.data.albums import of_pictures
from diffrep.data.raw import IDS, Raw, as_labels, is_class_column, keep, label_column_of, split_of
from diffrep.data.values import of_array
from diffrep.errors import UserError


@dataclass(frozen=True)
class Part:
    """One table: where it comes from (for errors and for paths beside it) and its split, if it has one."""

    table: pa.Table
    origin: str
    split: str | None = None


class Pictures(Sequence):
    """A column {bytes, path} as encoded bytes, or the path where the bytes lie outside; nothing is copied."""

    def __init__(self, content: pa.ChunkedArray, paths: list[str | None], origins: list[str]):
        self.content, self.paths, self.origins = content, paths, origins

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, i):
        content = self.content[i].as_py()
        if content is None and self.paths[i]:
            return str(Path(self.origins[i]).parent / self.paths[i])
        return content or b""


def read_parquet(files: Sequence[Path], name: str, label_column: str | None, skip_bad: bool) -> Raw:
    """Parquet files in hub layout (`train-*.parquet`, `test/*.parquet`) or without splits. See `of_tables`."""
    parts = []
    for file in files:
        try:
            table = pq.ParquetFile(file).read()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file} cannot be read as Parquet ({_first_line(error)}): write it anew.") from error
        parts.append(Part(table, str(file), split_of(file.stem) or split_of(file.parent.name)))
    return of_tables(parts, name, label_column, skip_bad)


def read_csv(file: Path, label_column: str | None) -> Raw:
    """A table of numbers in CSV, or TSV by its suffix. See `of_tables`."""
    return of_tables([Part(csv_table(file), str(file))], str(file), label_column, skip_bad=False)


def csv_table(file: Path) -> pa.Table:
    """A CSV file with a header line, as a table."""
    try:
        options = pa.csv.ParseOptions(delimiter="\t" if file.suffix == ".tsv" else ",")
        return pa.csv.read_csv(file, parse_options=options)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as CSV ({_first_line(error)}): check its columns.") from error


def of_tables(parts: Sequence[Part], name: str, label_column: str | None, skip_bad: bool) -> Raw:
    """Tables -> Raw: a column of pictures ({bytes, path} or bytes), else the numeric columns as features.

    Lists of equal length (codes, embeddings) count as numeric columns. The label column gives the classes, with the
    names that a hub's ClassLabel holds; words and, beside pictures, numbers are factors. Where one part is "train",
    parts without a split are left out, as a hub's further splits are.
    """
    if any(part.split == "train" for part in parts):
        parts = [part for part in parts if part.split]
    else:
        parts = [Part(part.table, part.origin) for part in parts]
    try:
        table = pa.concat_tables([part.table for part in parts], promote_options="default")
    except pa.ArrowException as error:
        raise UserError(f"the files of {name} differ in their columns ({_first_line(error)}): give one.") from error
    lengths = [len(part.table) for part in parts]
    split = np.repeat([part.split for part in parts], lengths) if parts[0].split else None
    label = label_column_of(table.column_names, label_column)
    if label and not label_column and not is_class_column(_numpy(table.column(label))):
        label = None
    labels = as_labels(_numpy(table.column(label)), f"column {label!r} of {name}") if label else None
    names = _class_names(parts[0].table.schema, label)
    others = [column for column in table.column_names if column != label]
    picture = next((column for column in others if _holds_pictures(table.schema.field(column))), None)

    if picture is not None:
        origins = [part.origin for part in parts for _ in range(len(part.table))]
        encoded = _pictures(table.column(picture), origins)
        rows = np.concatenate([np.arange(n) for n in lengths])
        called = [f"{o}: {p or f'row {r}'}" for o, p, r in zip(origins, encoded.paths, rows, strict=True)]
        values, kept = of_pictures(encoded, called, skip_bad)
        ids = list(map(str, encoded.paths)) if all(encoded.paths) else None
        factors = _columns(table, [c for c in others if c != picture and not _is_nested(table.schema.field(c).type)])
        return keep(Raw(values, split, labels, names, ids, factors), kept, len(encoded))

    row_names = next((column for column in IDS if column in others), None)
    numeric = [c for c in others if c != row_names and _is_numeric(table.schema.field(c).type)]
    if not numeric:
        raise UserError(
            f"{name} has neither a column of pictures nor numeric columns (it has {', '.join(table.column_names)}): "
            "store pictures as {bytes, path}, or numbers."
        )
    features = np.column_stack([_features(table.column(column), f"column {column!r} of {name}") for column in numeric])
    ids = list(map(str, table.column(row_names).to_pylist())) if row_names else None
    words = [c for c in others if c not in numeric and c != row_names and not _is_nested(table.schema.field(c).type)]
    return Raw(of_array(features, name), split, labels, names, ids, _columns(table, words))


def _pictures(column: pa.ChunkedArray, origins: list[str]) -> Pictures:
    if pa.types.is_struct(column.type):
        fields = {field.name for field in column.type}
        paths = pc.struct_field(column, "path").to_pylist() if "path" in fields else [None] * len(column)
        return Pictures(pc.struct_field(column, "bytes"), paths, origins)
    return Pictures(column, [None] * len(column), origins)


def _holds_pictures(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_nested(kind: pa.DataType) -> bool:
    return pa.types.is_nested(kind) or pa.types.is_binary(kind)


def _is_numeric(kind: pa.DataType) -> bool:
    inner = kind.value_type if _is_list(kind) else kind
    return pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _features(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """A numeric column as (N,), or a column of equally long lists as (N, F); missing numbers become NaN."""
    if not _is_list(column.type):
        return _numpy(column).astype(np.float64)
    lengths = set(pc.list_value_length(column).to_pylist())
    if len(lengths) != 1 or None in lengths:
        raise UserError(f"{name} holds lists of different lengths, expected one length: pad or cut them.")
    return _numpy(pc.list_flatten(column)).astype(np.float64).reshape(len(column), -1)


def _columns(table: pa.Table, columns: Sequence[str]) -> dict[str, np.ndarray]:
    return {column: _numpy(table.column(column)) for column in columns}


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    """A column as an array; words as str, missing words as "", missing numbers as NaN."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array(pc.fill_null(column, "").to_pylist(), dtype=str)
    return column.to_numpy()


def _class_names(schema: pa.Schema, label: str | None) -> list[str] | None:
    """The names that a hub stores for its ClassLabel column, in the metadata of the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return list(features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
