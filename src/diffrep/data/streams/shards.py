"""Shards: files of a set that is too large for memory and disk, here or behind a URL, read from any row on."""

from __future__ import annotations

import hashlib
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import IO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from diffrep.data.pictures import SUFFIXES
from diffrep.errors import UserError, lacks_memory, reason_of

AT_ONCE = 64  # rows that are read at a time


@dataclass(frozen=True)
class Shard(ABC):
    """Consecutive rows of one file: `count` of them, the first of which is row `first` of the file."""

    url: str
    first: int
    count: int

    @abstractmethod
    def tables(self, start: int) -> Iterator[pa.Table]:
        """Its rows from row `start` of it on, at most `AT_ONCE` at a time. UserError: the file cannot be read."""


@dataclass(frozen=True)
class RowGroup(Shard):
    """A row group of a Parquet file."""

    group: int

    def tables(self, start: int) -> Iterator[pa.Table]:
        with opened(self.url, "Parquet") as file:
            parquet = pq.ParquetFile(file, buffer_size=2**20, page_checksum_verification=True)
            for rows in parquet.iter_batches(AT_ONCE, row_groups=[self.group]):
                if start < len(rows):
                    yield pa.Table.from_batches([rows.slice(start)])
                start = max(0, start - len(rows))


@dataclass(frozen=True)
class Tar(Shard):
    """A tar file of WebDataset: files that share a name up to its first dot are an example, KEY.png and KEY.cls."""

    def tables(self, start: int) -> Iterator[pa.Table]:
        rows: list[dict] = []
        with opened(self.url, "a tar file") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for number, (key, members) in enumerate(_examples(tar)):
                if number == self.count:
                    break
                if number < start:
                    continue
                rows.append(_row(tar, key, members, self.url))
                if len(rows) == AT_ONCE:
                    yield pa.Table.from_pylist(rows, SCHEMA)
                    rows = []
        if rows:
            yield pa.Table.from_pylist(rows, SCHEMA)


SCHEMA = pa.schema(
    {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()}
)  # of the rows of a tar


@dataclass(frozen=True)
class Shards:
    """The training rows of a stream, in the order of their files."""

    name: str
    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        return sum(shard.count for shard in self.shards)

    def fingerprint(self, sample: str) -> str:
        """16 hex digits over a sample of the rows, and over the names and sizes of all files."""
        sizes = [(PurePosixPath(shard.url).name, shard.first, shard.count) for shard in self.shards]
        return hashlib.sha256(f"{sample} {sizes}".encode()).hexdigest()[:16]


@contextmanager
def opened(url: str, kind: str) -> Iterator[IO[bytes]]:
    """The open file; an error inside the `with` block is a UserError that names it."""
    try:
        with fsspec.open(url, "rb") as file:
            yield file
    except Exception as error:  # each kind of address has kinds of its own
        if isinstance(error, UserError) or lacks_memory(error):
            raise
        raise UserError(
            f"{url} cannot be read as {kind} ({reason_of(error)}): check the way to it, or write it anew."
        ) from error


def row_groups(url: str) -> list[Shard]:
    """The row groups of a Parquet file; its footer alone is read."""
    with opened(url, "Parquet") as file:
        about = pq.ParquetFile(file).metadata
        counts = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
    return [RowGroup(url, sum(counts[:i]), count, i) for i, count in enumerate(counts) if count]


def tar(url: str, count: int | None) -> list[Shard]:
    """A tar file as one shard; its examples are counted where their number is not known: every header is read."""
    if count is None:
        with opened(url, "a tar file") as file, tarfile.open(fileobj=file, mode="r:") as held:
            count = sum(1 for _ in _examples(held))
    return [Tar(url, 0, count)] if count else []


def _examples(tar: tarfile.TarFile) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """(key, its files) of each example, in the order of the tar."""
    for key, members in groupby((member for member in tar if member.isfile()), key=_key):
        yield key, list(members)
        vars(tar)["members"].clear()  # which holds every header that was read


def _key(member: tarfile.TarInfo) -> str:
    path = PurePosixPath(member.name)
    return str(path.parent / path.name.split(".")[0])


def _row(tar: tarfile.TarFile, key: str, members: Sequence[tarfile.TarInfo], url: str) -> dict:
    """{image, label} of an example; UserError where it has no picture, or its label is no number."""
    row: dict = {"image": None, "label": None}
    for member in members:
        suffix = PurePosixPath(member.name).suffix.lower()
        file = tar.extractfile(member)
        if suffix in SUFFIXES and file is not None:
            row["image"] = {"bytes": file.read(), "path": member.name}
        elif suffix == ".cls" and file is not None:
            try:
                row["label"] = int(file.read(64))
            except ValueError as error:
                raise UserError(f"{url}: {member.name} holds no whole number, expected the class: mend it.") from error
    if row["image"] is None:
        raise UserError(
            f"{url}: {key} has no picture ({', '.join(sorted(SUFFIXES))}), expected one in each example: write it anew."
        )
    return row
