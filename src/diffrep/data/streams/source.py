"""A stream as a source: its shards are counted, and a sample of them tells how the rest is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath

import fsspec
import numpy as np
import pyarrow as pa

from diffrep.data.names import split_of
from diffrep.data.raw import Raw
from diffrep.data.readers.tables import Piece, of_tables, together
from diffrep.data.reading import Reading
from diffrep.data.streams.shards import Shard, Shards, row_groups, tar
from diffrep.errors import UserError, reason_of

PREFIX = "stream:"
SAMPLE = 10_000  # training examples that stand for all of them wherever a number needs the whole training set
PLACES = 16  # of the sample
SIZES = "sizes.json"  # beside tar files: their names and the examples of each, as WebDataset keeps them
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


def read_stream(name: str, reading: Reading, skip_bad: bool) -> Raw:
    """A sample of the training rows and all of the validation and test rows as `Raw`, and the shards of training.

    name: "stream:" and a folder, a pattern or a URL with {000..123}; files are Parquet or tar. The name of a file or of
    its folder says its split. UserError: no such files, no validation or test among them, a file that is broken.
    """
    files = listed(name.removeprefix(PREFIX), name)
    splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    unnamed: list[str] = []
    for file in files:
        path = PurePosixPath(file)
        split = split_of(path.name.split(".")[0]) or split_of(path.parent.name)
        (unnamed if split is None else splits[split]).append(file)
    if splits["train"] and unnamed:
        reading = reading.noted(f"What belongs to no split of {name} is left out: {', '.join(unnamed[:3])}.")
    splits["train"] = splits["train"] or unnamed
    if lacking := [split for split, several in splits.items() if not several]:
        raise UserError(
            f"{name} has no files of {' and '.join(lacking)} among {len(files)}, and a stream is cut by the names of"
            " its files: call them train-0000.parquet, valid-0000.parquet, test-0000.parquet, or the like."
        )
    held = {split: shards_of(several) for split, several in splits.items()}
    for split, shards in held.items():
        if not shards:
            raise UserError(f"{name} has no examples of {split}, expected one at least: check how it was written.")
    train = Shards(name, tuple(held["train"]))
    tables = [
        Piece(together(sample(train.shards), name), f"{name} (a sample of train)", "train"),
        *(Piece(together(_all(held[split]), name), f"{name} ({split})", split) for split in ("valid", "test")),
    ]
    return replace(of_tables(tables, name, reading, skip_bad), shards=train)


def listed(pattern: str, name: str) -> list[str]:
    """The Parquet and tar files of a folder or a pattern, sorted. UserError: there are none."""
    try:
        found = sorted({file for one in _ranged(pattern) for file in _matching(one)})
    except Exception as error:  # each kind of address has kinds of its own
        raise UserError(f"{name} cannot be listed ({reason_of(error)}): check the address.") from error
    if not found:
        raise UserError(f"{name} has no .parquet and no .tar files: give a folder, a pattern, or a range {{000..123}}.")
    return found


def shards_of(files: Sequence[str]) -> list[Shard]:
    """The shards of files, in their order; footers and headers are read in eight threads."""
    sizes = {folder: _sizes(folder) for folder in {_folder(file) for file in files if file.endswith(".tar")}}

    def one(file: str) -> list[Shard]:
        if file.endswith(".tar"):
            return tar(file, sizes[_folder(file)].get(PurePosixPath(file).name))
        return row_groups(file)

    with ThreadPoolExecutor(8) as pool:
        return [shard for several in pool.map(one, files) for shard in several]


def sample(shards: Sequence[Shard]) -> Iterator[pa.Table]:
    """At most `SAMPLE` rows: as many from the beginning of each of `PLACES` shards, evenly from the first to the last;
    all rows where there are no more."""
    if sum(shard.count for shard in shards) <= SAMPLE:
        yield from _all(shards)
        return
    chosen = np.unique(np.linspace(0, len(shards) - 1, PLACES).astype(int))
    left = SAMPLE
    for number, place in enumerate(chosen):
        wanted = min(left // (len(chosen) - number), shards[place].count)
        left -= wanted
        for table in shards[place].tables(0):
            yield table.slice(0, wanted)
            wanted -= len(table)
            if wanted <= 0:
                break


def _all(shards: Sequence[Shard]) -> Iterator[pa.Table]:
    for shard in shards:
        yield from shard.tables(0)


def _ranged(pattern: str) -> Iterator[str]:
    """Each name that {000..123} or {train,valid,test} stands for."""
    match = BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, words = match.groups()
    numbers = () if words else range(int(first), int(last) + 1)
    for word in words.split(",") if words else (f"{number:0{len(first)}d}" for number in numbers):
        yield from _ranged(f"{pattern[: match.start()]}{word}{pattern[match.end() :]}")


def _matching(pattern: str) -> list[str]:
    """The files of a folder or a pattern, as addresses that can be opened."""
    fs, path = fsspec.core.url_to_fs(pattern)
    if "*" in pattern or "?" in pattern or "[" in pattern:
        paths = fs.glob(path)
    elif path.endswith((".parquet", ".tar")):
        paths = [path]
    else:
        paths = fs.find(path) if fs.isdir(path) else []
    local = "file" in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)
    return [
        one if local else fs.unstrip_protocol(one)
        for one in map(str, paths)
        if one.endswith((".parquet", ".tar")) and not PurePosixPath(one).name.startswith(".")
    ]


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


def _sizes(folder: str) -> dict[str, int]:
    """File -> its number of examples, where a file beside them says so. UserError: that file is broken."""
    try:
        with fsspec.open(f"{folder}/{SIZES}", "r") as file:
            stated = json.load(file)
        return {str(name): int(count) for name, count in stated.items()}
    except OSError:
        return {}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f'{folder}/{SIZES} is broken, expected JSON like {{"train-0.tar": 1000}}: mend it, or remove it, and the'
            " examples are counted."
        ) from error
