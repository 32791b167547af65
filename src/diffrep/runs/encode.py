"""Codes of a data set as Parquet, one row for each example, or inside of a file of cells."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from diffrep.codes.posteriors import Code
from diffrep.data import Examples
from diffrep.errors import UserError
from diffrep.evaluation.encoding import encode_batches
from diffrep.files import replacing
from diffrep.models.base import Model


@torch.no_grad()
def embed(
    model: Model,
    examples: Examples,
    path: str | Path,
    times: tuple[float, ...] = (),
    shard: int = 0,
    shards: int = 1,
    batch: int = 500,
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write the position in the source, id, label, class and split (where there are any) and the code of each example;
    returns the file written.

    A Gaussian code has a column `spread` beside `code`. times: for a time-conditioned code, a column `code_t0.30` for
    each. shard, shards: with several processes, each writes its own file codes-00000-of-00002.parquet. The file is
    whole or absent.
    """
    path = Path(path)
    if len(examples) < shards:
        raise UserError(f"{len(examples)} examples are too few for {shards} processes: start fewer of them.")
    for t in times or (None,):
        model.need_code(t)
    if shards > 1:
        path = path.with_name(f"{path.stem}-{shard:05d}-of-{shards:05d}{path.suffix or '.parquet'}")
    mine = torch.arange(len(examples)).tensor_split(shards)[shard]
    writer: pq.ParquetWriter | None = None
    with replacing(path) as temporary:
        for chunk, codes in encode_batches(model, examples, times or (None,), batch, mine, progress):
            table = pa.table(_columns(examples, chunk.index.cpu(), times or (None,), codes))
            writer = writer or pq.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
    return path


@torch.no_grad()
def embed_cells(
    model: Model,
    examples: Examples,
    source: str | Path,
    path: str | Path,
    key: str = "X_diffrep",
    t: float | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write the file of cells `source` again with the mean codes (N, d) of its cells in `obsm[key]`; the rest of it is
    copied as it is, without being loaded. The file, which may be `source` itself, is whole or absent."""
    import anndata
    import h5py

    path = Path(path)
    model.need_code(t)
    rows = torch.arange(len(examples))
    codes = [code.mean.float().cpu() for _, (code,) in encode_batches(model, examples, (t,), 500, rows, progress)]
    with replacing(path) as temporary:
        shutil.copyfile(Path(source).expanduser(), temporary)
        with h5py.File(temporary, "r+") as file:
            anndata.io.write_elem(file.require_group("obsm"), key, torch.cat(codes).numpy())
    return path


def _columns(examples: Examples, rows: torch.Tensor, times: Sequence[float | None], codes: Sequence[Code]) -> dict:
    places = rows.numpy() if examples.rows is None else examples.rows[rows.numpy()]
    columns: dict = {"index": pa.array(places.tolist(), pa.int64())}
    if examples.ids is not None:
        columns["id"] = pa.array([examples.ids[i] for i in rows], pa.string())
    if examples.labels is not None:
        labels = examples.labels.cpu()[rows].tolist()
        columns["label"] = pa.array(labels, pa.int64())
        if examples.label_names is not None:
            columns["class"] = pa.array([examples.label_names[k] if k >= 0 else None for k in labels], pa.string())
    if examples.own_split is not None:
        columns["split"] = pa.array(examples.own_split[rows.numpy()].tolist(), pa.string())
    for t, code in zip(times, codes, strict=True):
        name = "" if t is None else f"_t{t:.2f}"
        columns[f"code{name}"] = _vectors(code.mean)
        if code.spread is not None:
            columns[f"spread{name}"] = _vectors(code.spread)
    return columns


def _vectors(values: torch.Tensor) -> pa.Array:
    flat = pa.array(values.float().cpu().numpy().reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
