"""Arrow tables, from Parquet, CSV, a data frame or a hub: encoded pictures with labels, or rows of numbers."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffrep.data.albums import of_pictures
from diffrep.data.columns import Column, chosen, with_label, with_split
from diffrep.data.names import EXAMPLES, PICTURES, required_column, split_of, usual_column
from diffrep.data.pictures import header
from diffrep.data.raw import Raw, as_labels, keep
from diffrep.data.readers.csv_files import read_csv as csv_table
from diffrep.data.reading import Reading
from diffrep.data.values import of_array, of_table
from diffrep.errors import UserError, reason_of


@dataclass(frozen=True)
class Piece:
    """One table of a data set, its origin (for errors and for paths beside it) and its split, if it has one."""

    table: pa.Table
    origin: str
    split: str | None = None


class Pictures(Sequence):
    """A column {bytes, path} as encoded bytes, or the path where the bytes lie outside; nothing is copied."""

    def __init__(self, content: pa.ChunkedArray, paths: list[str | None], pieces: Sequence[Piece]):
        self.content, self.paths, self.origins = content, paths, [piece.origin for piece in pieces]
        self.ends = [*accumulate(len(piece.table) for piece in pieces)]

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, i: Any) -> Any:
        content = self.content[i].as_py()
        if content is None and self.paths[i]:
            return str(Path(self.origin(i)[0]).parent / self.paths[i])
        return content or b""

    def origin(self, i: int) -> tuple[str, int]:
        """The file of a picture, and its row there."""
        k = bisect_right(self.ends, i)
        return self.origins[k], i - (self.ends[k - 1] if k else 0)


@dataclass(frozen=True)
class Names(Sequence):
    """What each of these pictures is called in an error, put together when it is asked for."""

    pictures: Pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: Any) -> Any:
        file, row = self.pictures.origin(int(i))
        return f"{file}: {self.pictures.paths[i] or f'row {row}'}"


def read_parquet(files: Sequence[Path], name: str, root: Path | None, reading: Reading, skip_bad: bool) -> Raw:
    """Parquet files in hub layout (`train-*.parquet`, `test/*.parquet`) or without splits. See `of_tables`."""
    files, reading = _configured(files, name, root, reading)
    tables = []
    for file in files:
        try:
            table = pq.ParquetFile(file, page_checksum_verification=True).read()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file} cannot be read as Parquet ({reason_of(error)}): write it anew.") from error
        tables.append(Piece(table, str(file), split_of(file.stem) or (split_of(file.parent.name) if root else None)))
    return of_tables(tables, name, reading, skip_bad)


def _configured(
    files: Sequence[Path], name: str, root: Path | None, reading: Reading
) -> tuple[Sequence[Path], Reading]:
    """The files of one configuration, where several folders hold the same splits; UserError where none is chosen."""
    if root is None:
        return files, reading
    groups: dict[str, list[Path]] = {}
    for file in files:
        folders = [name for name in file.relative_to(root).parts[:-1] if split_of(name) is None and name != "data"]
        groups.setdefault("/".join(folders), []).append(file)
    if reading.config is not None and (reading.config in groups or not reading.applied):
        return groups[required_column(reading.config, groups, "configuration")], reading
    split = [
        key for key, members in groups.items() if any(split_of(f.stem) or split_of(f.parent.name) for f in members)
    ]
    if len(split) < 2:
        return files, reading
    if "default" in groups:
        doubt = f"{name} has the configurations {', '.join(sorted(groups))}, of which default is read: data.config."
        return groups["default"], reading.guess("config", "default", doubt)
    raise UserError(
        f"{name} has several configurations, {', '.join(sorted(groups))}, which are different sets: choose one with"
        " data.config."
    )


def read_csv(file: Path, reading: Reading) -> Raw:
    """A table of numbers as text. See `csv_files` and `of_tables`."""
    table, reading = csv_table(file, reading)
    return of_tables([Piece(table, str(file))], str(file), reading, skip_bad=False)


def together(tables: Iterable[pa.Table], name: str) -> pa.Table:
    """Tables of the same columns as one. UserError: they differ in their columns."""
    try:
        return pa.concat_tables(tables, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(
            f"files of {name} differ in their columns ({reason_of(error)}): give one, or write them alike."
        ) from error


def of_tables(tables: Sequence[Piece], name: str, reading: Reading, skip_bad: bool) -> Raw:
    """Tables -> Raw: a column of pictures ({bytes, path} or bytes), else the numeric columns as features.

    Lists of equal length (codes, embeddings) count as numeric columns. The label column gives the classes, with the
    names that a hub's ClassLabel holds; words and, beside pictures, numbers are factors. Where one table is "train",
    tables without a split are left out, as further splits of a hub are.
    """
    if any(piece.split == "train" for piece in tables):
        out = [piece.origin for piece in tables if not piece.split]
        tables = [piece for piece in tables if piece.split]
        if out:
            reading = reading.noted(f"What belongs to no split of {name} is left out: {', '.join(out[:3])}.")
    else:
        tables = [Piece(piece.table, piece.origin) for piece in tables]
    table = together([piece.table for piece in tables], name)
    if len(table) == 0:
        raise UserError(f"{name} holds no examples, expected at least 3: check how it was written.")
    lengths = [len(piece.table) for piece in tables]
    split = np.repeat([piece.split for piece in tables], lengths) if tables[0].split else None
    picture, reading = _picture(table, name, reading)
    columns = [as_column(table, c) for c in table.column_names if c != picture]
    if split is not None:
        reading = reading.decided(split="files")
    else:
        split, reading = with_split({c.name: c.values for c in columns if c.values is not None}, name, reading)
    parts = tuple((piece.origin, len(piece.table)) for piece in tables)
    hub = _hub_labels(tables[0].table.schema)
    if not reading.applied:
        reading = reading.decided(columns={c: holds(table.schema.field(c).type) for c in table.column_names})
    if picture is not None:
        raw = _of_pictures(table, picture, columns, tables, split, name, reading, skip_bad)
        return replace(raw, parts=parts)
    reading = chosen(columns, name, reading, next((c for c in hub if c in table.column_names), None))
    by_name = {column.name: column for column in columns}
    labels = _labels(by_name, name, reading)
    assert reading.features is not None
    if not reading.features and not reading.words:
        shown = ", ".join(table.column_names)
        raise UserError(
            f"{name} has neither a column of pictures nor numeric columns (it has {shown}): store pictures as {{bytes, "
            "path}, or numbers, or name columns of words with data.columns."
        )
    pieces = [as_numbers(table.column(c), by_name[c], f"column {c!r} of {name}") for c in reading.features]
    features = np.column_stack(pieces) if pieces else np.zeros((len(table), 0))
    widths = [1 if piece.ndim == 1 else piece.shape[1] for piece in pieces]
    called = [c if w == 1 else f"{c}[{i}]" for c, w in zip(reading.features, widths, strict=True) for i in range(w)]
    values, reading = of_table(features, name, reading, called)
    words = {c: _words(by_name[c], name) for c in reading.words}
    ids = list(map(str, table.column(reading.ids).to_pylist())) if reading.ids in by_name else None
    factors = {c: held for c in reading.factors or () if c in by_name and (held := by_name[c].values) is not None}
    return Raw(values, reading, split, labels, hub.get(reading.label or ""), ids, factors, words, parts=parts)


def _of_pictures(
    table: pa.Table,
    picture: str,
    columns: list[Column],
    tables: Sequence[Piece],
    split: np.ndarray | None,
    name: str,
    reading: Reading,
    skip_bad: bool,
) -> Raw:
    hub = _hub_labels(tables[0].table.schema)
    columns = [c for c in columns if c.name not in reading.drop and f"column {c.name}" != reading.split]
    by_name = {c.name: c for c in columns}
    first = next((c for c in hub if c in by_name), None)
    usual = usual_column(("fine_label", "label"), hub) or first
    reading = with_label(columns, name, reading, usual)
    labels = _labels(by_name, name, reading)
    factors = {c.name: c.values for c in columns if c.values is not None and c.name != reading.label}
    reading = reading.guess("factors", tuple(factors)) if factors else reading
    reading = reading.decided(left_out=tuple(c.name for c in columns if c.values is None and c.name != reading.label))
    if pa.types.is_nested(table.schema.field(picture).type) and not _holds_pictures(table.schema.field(picture)):
        values, reading = of_array(_nested(table.column(picture), f"column {picture!r} of {name}"), name, reading)
        return Raw(values, reading, split, labels, hub.get(reading.label or ""), None, factors)
    encoded = _pictures(table.column(picture), tables)
    values, kept, reading = of_pictures(encoded, Names(encoded), skip_bad, reading)
    ids = list(map(str, encoded.paths)) if all(encoded.paths) else None
    raw = Raw(values, reading, split, labels, hub.get(reading.label or ""), ids, factors)
    return keep(raw, kept, len(encoded))


def _picture(table: pa.Table, name: str, reading: Reading) -> tuple[str | None, Reading]:
    """The column of pictures: the one asked for, image before all others, else the first that holds any."""
    if reading.picture is not None and (reading.picture in table.column_names or not reading.applied):
        return required_column(reading.picture, table.column_names, "column of pictures"), reading
    held = [c for c in table.column_names if _holds_pictures(table.schema.field(c)) and _begins(table.column(c))]
    held = held or [c for c in table.column_names if c.lower() in EXAMPLES and _is_grid(table.schema.field(c).type)]
    if not held:
        return None, reading
    named = usual_column(PICTURES, held)
    chosen_one = named or held[0]
    doubt = f"{name} has pictures in the columns {', '.join(held)}, of which {chosen_one} is read: data.column."
    return chosen_one, reading.guess("picture", chosen_one, doubt if named is None and len(held) > 1 else "")


def _begins(column: pa.ChunkedArray) -> bool:
    """Is the first value that is not missing a picture (or a path)? Other bytes are none."""
    for i in range(min(len(column), 1000)):
        value = column[i].as_py()
        if isinstance(value, dict):
            if value.get("path") and value.get("bytes") is None:
                return True
            value = value.get("bytes")
        if value is not None:
            try:
                header(value, "it")
            except UserError:
                return pa.types.is_struct(column.type)  # a broken picture among {bytes, path} is still one
            return True
    return pa.types.is_struct(column.type)


def as_column(table: pa.Table, name: str) -> Column:
    """A column by its name, with the kind that its type makes it."""
    kind = table.schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_list(kind):
        inner = kind.value_type
        return Column(name, "list" if _is_numeric(inner) else "other")
    if (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):
        return Column(name, "number", _numpy(table.column(name)))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return Column(name, "word", _numpy(table.column(name)))
    if pa.types.is_null(kind):
        return Column(name, "number", np.full(len(table), np.nan))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return Column(name, "number", _seconds(table.column(name)))
    return Column(name, "other")


def _labels(columns: dict[str, Column], name: str, reading: Reading) -> np.ndarray | None:
    column = columns.get(reading.label or "")
    if column is None:
        return None
    if column.values is None:
        raise UserError(
            f"column {column.name!r} of {name} holds no single value for each example, so it is no label: name another."
        )
    return as_labels(column.values, f"column {column.name!r} of {name}")


def _words(column: Column, name: str) -> np.ndarray:
    if column.values is None:
        raise UserError(f"column {column.name!r} of {name} holds no words, expected those of the training.")
    return column.values


def _pictures(column: pa.ChunkedArray, pieces: Sequence[Piece]) -> Pictures:
    if pa.types.is_struct(column.type):
        fields = {field.name for field in column.type}
        paths = pc.struct_field(column, "path").to_pylist() if "path" in fields else [None] * len(column)
        return Pictures(pc.struct_field(column, "bytes"), paths, pieces)
    return Pictures(column, [None] * len(column), pieces)


def _holds_pictures(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_grid(kind: pa.DataType) -> bool:
    """Lists of lists of numbers, or what `datasets` calls an Array2D."""
    storage = getattr(kind, "storage_type", kind)
    return _is_list(storage) and _is_list(storage.value_type)


def _nested(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Lists of lists as one array (N, ...)."""
    try:
        return np.array(column.to_pylist(), dtype=None)
    except ValueError as error:
        raise UserError(f"{name} holds examples of different shapes, expected one: pad or cut them.") from error


def as_numbers(column: pa.ChunkedArray, read: Column, name: str) -> np.ndarray:
    """A numeric column as (N,), or a column of equally long lists as (N, F); missing numbers become NaN."""
    if read.kind == "word":
        raise UserError(f"{name} holds words, expected numbers as in training: check the file.")
    if not _is_list(column.type):
        assert read.values is not None
        return read.values.astype(np.float64)
    lengths = set(pc.list_value_length(column).to_pylist())
    if len(lengths) != 1 or None in lengths:
        raise UserError(f"{name} holds lists of different lengths, expected one length: pad or cut them.")
    return _numpy(pc.list_flatten(column)).astype(np.float64).reshape(len(column), -1)


def holds(kind: pa.DataType) -> str:
    """What a column of this type holds, in the words of `Reading.columns`."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = {
        "bool": pa.types.is_boolean,
        "int": pa.types.is_integer,
        "float": lambda k: pa.types.is_floating(k) or pa.types.is_decimal(k) or pa.types.is_null(k),
        "day": pa.types.is_date,
        "second": pa.types.is_timestamp,
        "word": lambda k: pa.types.is_string(k) or pa.types.is_large_string(k) or pa.types.is_string_view(k),
    }
    return next((word for word, test in tests.items() if test(kind)), "other")


def _seconds(column: pa.ChunkedArray) -> np.ndarray:
    """Dates as seconds since 1970 (N,), NaN for a gap."""
    zone = getattr(column.type, "tz", None)
    exact = column.cast(pa.timestamp("us", tz=zone)).cast(pa.int64())
    return exact.cast(pa.float64(), safe=False).to_numpy() / 1e6


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    """A column as an array; words as str, missing words as "", missing numbers as NaN."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        return np.array(pc.fill_null(column, "").to_pylist(), dtype=str)
    if pa.types.is_boolean(column.type) and column.null_count:
        column = column.cast(pa.int8()).cast(pa.float64())
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    return column.to_numpy()


def _hub_labels(schema: pa.Schema) -> dict[str, list[str]]:
    """Column -> names of its classes, of every ClassLabel that a hub describes in the metadata of the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {c: list(f["names"]) for c, f in features.items() if isinstance(f, dict) and "names" in f}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
