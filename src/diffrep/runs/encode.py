"""Codes of a data set as Parquet, one row for each example, or inside of a file of cells."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from diffrep.amounts import amount
from diffrep.codes.posteriors import Code, Posterior
from diffrep.data import Examples
from diffrep.errors import UserError
from diffrep.evaluation.encoding import AT_ONCE, encode_batches
from diffrep.files import reading, replacing, writing
from diffrep.models.base import Model
from diffrep.runs.lock import LOCK, locked
from diffrep.runs.records import digest, weights_digest
from diffrep.shapes import Batch

ROWS, BYTES = 50_000, 64 * 2**20  # most of a part: a row group of the file
BATCH = 8 * AT_ONCE
KEY = b"diffrep"  # in the metadata of a part: all that its rows follow from

Count = Callable[[int], None]


@torch.no_grad()
def embed(
    model: Model,
    examples: Examples,
    path: str | Path,
    times: tuple[float, ...] = (),
    shard: int = 0,
    shards: int = 1,
    progress: Count = lambda done: None,
) -> Path:
    """Write where each example comes from, its label and class (where there are any) and its code; returns the file
    written.

    A row has `index`, the place in the source, and `file` and `row`, the file of the source and the place in it; `id`
    and `split` where the source has them. A Gaussian code has a column `spread` beside `code`. times: for a
    time-conditioned code, a column `code_t0.30` for each. shard, shards: with several processes, each writes its own
    file codes-00000-of-00002.parquet.

    One part of at most `ROWS` rows and `BYTES` bytes is in memory at a time. Finished parts lie beside the file, in
    `.NAME.parts`, until all are there: then the file is put together, whole or absent. The same call after a kill goes
    on after the last whole part. UserError: examples that cannot be read, a file that cannot be written.
    """
    path, asked = Path(path), times or (None,)
    if len(examples) < shards:
        raise UserError(f"{shards} processes cannot share {amount(len(examples), 'example')}: start fewer of them.")
    posterior = [*map(model.need_code, asked)][-1]
    if shards > 1:
        path = path.with_name(f"{path.stem}-{shard:05d}-of-{shards:05d}{path.suffix or '.parquet'}")
    mine = torch.arange(len(examples)).tensor_split(shards)[shard]
    folder = path.with_name(f".{path.name}.parts")
    origin = digest(weights_digest(model.state_dict()), asked, *_about(examples))
    with locked(folder, path):
        pieces = []
        for number, rows in enumerate(mine.split(_size(posterior, len(asked)))):
            piece, key = folder / f"{number:05d}.parquet", digest(origin, int(rows[0]), int(rows[-1])).encode()
            if _is_whole(piece, key):
                progress(len(rows))
            else:
                table = _table(model, examples, rows, asked, progress).replace_schema_metadata({KEY: key})
                with replacing(piece) as temporary:
                    pq.write_table(table, temporary, write_page_checksum=True)
            pieces.append(piece)
        _join(pieces, path)
        with writing(folder):
            for file in [file for file in folder.iterdir() if file.name != LOCK]:
                file.unlink()
    with suppress(OSError):  # another process may have begun the same
        folder.rmdir()
    return path


@torch.no_grad()
def embed_cells(
    model: Model,
    examples: Examples,
    source: str | Path,
    path: str | Path,
    key: str = "X_diffrep",
    t: float | None = None,
    progress: Count = lambda done: None,
) -> Path:
    """Write the file of cells `source` again with the mean codes (N, d) of its cells in `obsm[key]`; the rest of it is
    copied as it is, without being loaded. The file, which may be `source` itself, is whole or absent."""
    import anndata
    import h5py

    path = Path(path)
    model.need_code(t)
    rows = torch.arange(len(examples))
    codes = [code.mean.float().cpu() for _, (code,) in _encoded(model, examples, rows, (t,), progress)]
    with replacing(path) as temporary:
        shutil.copyfile(Path(source).expanduser(), temporary)
        with h5py.File(temporary, "r+") as file:
            anndata.io.write_elem(file.require_group("obsm"), key, torch.cat(codes).numpy())
    return path


def _encoded(
    model: Model, examples: Examples, rows: Tensor, times: Sequence[float | None], progress: Count
) -> Iterator[tuple[Batch, list[Code]]]:
    """As `encode_batches`; an error of reading is about the examples, and not about what is written."""
    with reading(examples.name):
        yield from encode_batches(model, examples, times, BATCH, rows, progress)


def _size(posterior: Posterior, times: int) -> int:
    """Rows of a part, by the numbers in the codes of one example."""
    numbers = times * posterior.dim * (1 if posterior.deterministic else 2)
    return max(1, min(ROWS, BYTES // (4 * numbers)))


def _about(examples: Examples) -> Iterator[object]:
    """All that the rows of a file say beside the codes."""
    yield from (examples.fingerprint, examples.parts, examples.label_names)
    for column in (examples.labels, examples.rows, examples.own_split):
        yield None if column is None else np.asarray(column).tobytes()
    yield "\n".join(examples.ids or ()).encode()
    if examples.lazy:  # its fingerprint is over the beginning of each example
        for name, _ in examples.parts:
            file = Path(name)
            yield (name, file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else name


def _is_whole(piece: Path, key: bytes) -> bool:
    """Is this the part of that key, unchanged since it was written?"""
    try:
        return (_read(piece).schema.metadata or {}).get(KEY) == key
    except (OSError, pa.ArrowException):
        return False


def _read(piece: Path) -> pa.Table:
    return pq.ParquetFile(piece, page_checksum_verification=True).read()


def _join(pieces: Sequence[Path], path: Path) -> None:
    """The parts one after another, each a row group."""
    with replacing(path) as temporary:
        schema = pq.read_schema(pieces[0]).remove_metadata()
        with pq.ParquetWriter(temporary, schema, write_page_checksum=True) as writer:
            for piece in pieces:
                writer.write_table(_read(piece).replace_schema_metadata(None), ROWS)


def _table(model: Model, examples: Examples, rows: Tensor, times: Sequence[float | None], progress: Count) -> pa.Table:
    """The rows of a part."""
    batches = [codes for _, codes in _encoded(model, examples, rows, times, progress)]
    places = examples.places(rows)
    ends = np.cumsum([count for _, count in examples.parts])
    part = np.searchsorted(ends, places, side="right")
    names = pa.array([name for name, _ in examples.parts], pa.string())
    columns: dict[str, pa.Array] = {
        "index": pa.array(places, pa.int64()),
        "file": names.take(pa.array(part)),
        "row": pa.array(places - (ends - [count for _, count in examples.parts])[part], pa.int64()),
    }
    if examples.ids is not None:
        columns["id"] = pa.array([examples.ids[i] for i in rows], pa.string())
    if examples.labels is not None:
        labels = examples.labels.cpu()[rows].numpy()
        columns["label"] = pa.array(labels, pa.int64())
        if examples.label_names is not None:
            columns["class"] = pa.array(examples.label_names, pa.string()).take(pa.array(labels, mask=labels < 0))
    if examples.own_split is not None:
        columns["split"] = pa.array(examples.own_split[rows.numpy()].tolist(), pa.string())
    for number, t in enumerate(times):
        name, codes = "" if t is None else f"_t{t:.2f}", [batch[number] for batch in batches]
        columns[f"code{name}"] = _vectors([code.mean for code in codes])
        if codes[0].spread is not None:
            columns[f"spread{name}"] = _vectors([code.spread for code in codes if code.spread is not None])
    return pa.table(columns)


def _vectors(parts: Sequence[Tensor]) -> pa.Array:
    whole = torch.cat([part.float().cpu() for part in parts]).numpy()
    return pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1)), whole.shape[1])
