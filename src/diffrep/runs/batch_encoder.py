"""An encoder for batches of other engines: columns in, the same columns with `code` out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffrep.errors import UserError

if TYPE_CHECKING:  # a copy is made before torch is needed
    from diffrep.runs.run import Run


class BatchEncoder:
    """A run as a function of batches, for `datasets.map(batched=True)`, Ray's `map_batches`, and `mapInPandas`.

    A batch is a mapping of columns (lists or arrays), a pandas frame, or an iterator of frames; the result has
    the same type and a column `code` of lists, those of `diffrep encode`. column: that of the examples: pictures as
    bytes, {bytes, path}, paths or PIL images, read as those of the training were; or arrays. None: each row of the
    batch is one of a table.

    It can be pickled: a process opens the run at its first batch. weights: the digest of those that it stands for, so
    that an engine which keeps results does not take those of other weights. UserError: as `diffrep.load`.
    """

    def __init__(self, run: str | Path, column: str | None = "image", device: str = "auto"):
        from diffrep.runs.records import WEIGHTS, weights_digest
        from diffrep.runs.sharing import located
        from diffrep.training.checkpoints import load_tensors

        self.run, self.column, self.device = str(run), column, device
        self.weights = weights_digest(load_tensors(located(self.run) / WEIGHTS)[0])

    def __call__(self, batch: Any) -> Any:
        """The batch with its codes. UserError: no such column, examples of another kind than the run's data, a run that
        has other weights by now."""
        if isinstance(batch, Iterator):
            return map(self, batch)
        if self.column is not None and self.column not in batch:
            raise UserError(
                f"the batch has no column {self.column!r} (it has {', '.join(batch)}): name it with column=."
            )
        codes = list(self._codes(batch))
        assign = getattr(batch, "assign", None)
        return {**batch, "code": codes} if assign is None else assign(code=codes)

    def _codes(self, batch: Any) -> np.ndarray:
        """(N, d) float32."""
        from diffrep.runs.inputs import codes_of

        run = _opened(self.run, self.device, self.weights)
        if not len(batch[next(iter(batch))] if self.column is None else batch[self.column]):
            return np.empty((0, run.code_dim), np.float32)
        examples = _table(batch) if self.column is None else _examples(batch[self.column])
        return codes_of(run, examples).mean.float().cpu().numpy()


def encoder(run: str | Path, column: str | None = "image", device: str = "auto") -> BatchEncoder:
    """The encoder of a run directory for batches of `datasets`, Ray and Spark; see `BatchEncoder`."""
    return BatchEncoder(run, column, device)


@lru_cache(maxsize=2)
def _opened(run: str, device: str, weights: str) -> Run:
    """The run with these weights, once for each process. UserError where it has others."""
    from diffrep import runs
    from diffrep.runs.records import weights_digest

    opened = runs.load(run, device)
    if (now := weights_digest(opened.model.state_dict())) != weights:
        raise UserError(
            f"{run} has the weights {now} and the encoder was made for {weights}: it was trained further, or is another"
            " run on this machine; make the encoder anew."
        )
    return opened


def _examples(values: Sequence) -> Any:
    """A column as `Run.encode` takes it: pictures as they are stored, so that they are read as the training's were;
    everything else as one array."""
    given = [(value.get("bytes") or value.get("path")) if isinstance(value, dict) else value for value in values]
    pictures = all(isinstance(value, (bytes, str)) or hasattr(value, "getbands") for value in given)
    return given if pictures else np.stack([np.asarray(value) for value in given])


def _table(batch: Any) -> Any:
    """A batch of columns as a table; a frame is one."""
    import pyarrow as pa

    return batch if hasattr(batch, "assign") else pa.table({name: pa.array(batch[name]) for name in batch})
