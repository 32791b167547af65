"""What a trained run is given: other data, single examples, codes; each checked against what it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from diffrep import data
from diffrep.data import Examples
from diffrep.errors import UserError
from diffrep.runs.run import Run, form


def examples_of(run: Run, source: str, skip_bad: bool = False) -> Examples:
    """All examples of a source, prepared as the run's data was; UserError where their shape is another."""
    examples = data.whole(source, skip_bad=skip_bad, scaling=run.scaling())
    if (examples.shape, examples.bins) != (run.card.shape, run.card.bins):
        raise UserError(
            f"{run.directory} was trained on {form(run.card.shape, run.card.bins)} data and {source} is"
            f" {form(examples.shape, examples.bins)}; pick data of the same shape and levels."
        )
    if examples.prepared != run.card.prepared:
        raise UserError(
            f"{run.directory} was trained on a table ({run.card.prepared or 'plain numbers'}) and {source} is another"
            f" kind ({examples.prepared or 'plain numbers'}); give a table like the one it was trained on."
        )
    return examples


def one_example(run: Run, end: str) -> Tensor:
    """An example of a picture file, or of a position in the test split; *shape."""
    if not end.lstrip("-").isdigit():
        return examples_of(run, end).batch(torch.tensor([0])).x[0]
    test, position = run.splits().test, int(end)
    if not 0 <= position < len(test):
        raise UserError(f"the test split has positions 0 to {len(test) - 1}, got {position}.")
    return test.batch(torch.tensor([position])).x[0]


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
