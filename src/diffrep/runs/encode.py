"""Codes of a data set as Parquet: one row for each example."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from diffrep.data import Examples
from diffrep.data.batches import batches
from diffrep.errors import UserError
from diffrep.files import writing
from diffrep.models.base import Model, evaluating


@torch.no_grad()
def embed(
    model: Model,
    examples: Examples,
    path: str | Path,
    times: tuple[float, ...] = (),
    part: int = 0,
    parts: int = 1,
    batch: int = 500,
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write index, id and label (where known) and the code of each example; returns the file written.

    A Gaussian code has a column `spread` beside `code`. times: for a time-conditioned code, a column `code_t0.30` for
    each. part, parts: of several processes, each writes its own shard codes-00000-of-00002.parquet. The file is whole
    or absent.
    """
    path = Path(path)
    if len(examples) < parts:
        raise UserError(f"{len(examples)} examples are too few for {parts} processes: start fewer of them.")
    for t in times or (None,):
        model.encode(examples.batch(torch.tensor([0])).x.to(next(model.parameters()).device), t)  # or it says why not
    if parts > 1:
        path = path.with_name(f"{path.stem}-{part:05d}-of-{parts:05d}{path.suffix or '.parquet'}")
    mine = torch.arange(len(examples)).tensor_split(parts)[part]
    temporary = path.with_name(f".{path.name}.tmp")
    writer: pq.ParquetWriter | None = None
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with evaluating(model) as device:
                for chunk in batches(examples.subset(mine), batch, 0, device):
                    rows = mine[chunk.index.cpu()]
                    table = pa.table(_columns(model, chunk.x, rows, examples, times))
                    writer = writer or pq.ParquetWriter(temporary, table.schema)
                    writer.write_table(table)
                    progress(len(chunk))
            if writer is not None:
                writer.close()
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return path


def _columns(model: Model, x: torch.Tensor, rows: torch.Tensor, examples: Examples, times: tuple[float, ...]) -> dict:
    columns: dict = {"index": pa.array(rows.tolist(), pa.int64())}
    if examples.ids is not None:
        columns["id"] = pa.array([examples.ids[i] for i in rows], pa.string())
    if examples.labels is not None:
        columns["label"] = pa.array(examples.labels.cpu()[rows].tolist(), pa.int64())
    for t in times or (None,):
        code, name = model.encode(x, t), "" if t is None else f"_t{t:.2f}"
        columns[f"code{name}"] = _vectors(code.mean)
        if code.spread is not None:
            columns[f"spread{name}"] = _vectors(code.spread)
    return columns


def _vectors(values: torch.Tensor) -> pa.Array:
    flat = pa.array(values.float().cpu().numpy().reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
