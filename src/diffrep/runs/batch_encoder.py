"""An encoder for batches of other engines: columns in, the same columns with `code` out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffrep.errors import UserError


class BatchEncoder:
    """A run as a function of batches, for `datasets.map(batched=True)`, Ray's `map_batches`, and `mapInPandas`.

    A batch is a mapping of columns (lists or arrays), a pandas frame, or an iterator of frames; the result has
    the same type and a column `code` of lists. column: that of the examples: pictures as bytes, {bytes, path} or PIL
    images, or arrays. It can be pickled: a copy opens the run at its first batch.
    """

    def __init__(self, run: str | Path, column: str = "image", device: str = "auto"):
        self.run, self.column, self.device = str(run), column, device
        self._opened: Any = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_opened": None}

    def __call__(self, batch: Any) -> Any:
        """The batch with its codes. UserError: no such column, examples of another kind than the run's data."""
        if isinstance(batch, Iterator):
            return map(self, batch)
        if self.column not in batch:
            raise UserError(
                f"the batch has no column {self.column!r} (it has {', '.join(batch)}): name it with column=."
            )
        codes = list(self._codes([_pixels(value) for value in batch[self.column]]))
        assign = getattr(batch, "assign", None)
        return {**batch, "code": codes} if assign is None else assign(code=codes)

    def _codes(self, values: list[np.ndarray]) -> np.ndarray:
        """(N, d) float32."""
        from diffrep import runs
        from diffrep.runs.inputs import codes_of

        if self._opened is None:
            self._opened = runs.load(self.run, self.device)
        if not values:
            return np.empty((0, self._opened.settings.code.dim), np.float32)
        return codes_of(self._opened, np.stack(values)).mean.float().cpu().numpy()


def encoder(run: str | Path, column: str = "image", device: str = "auto") -> BatchEncoder:
    """The encoder of a run directory for batches of `datasets`, Ray and Spark; see `BatchEncoder`."""
    return BatchEncoder(run, column, device)


def _pixels(value: Any) -> np.ndarray:
    """A picture, encoded or not, or an array: (H, W), (C, H, W), (F,), ..."""
    from PIL import Image

    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        content = Image.open(io.BytesIO(content))
    if isinstance(content, Image.Image):
        pixels = np.asarray(content)
        return pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return np.asarray(content)
