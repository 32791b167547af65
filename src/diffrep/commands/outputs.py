"""Examples that a command made, as a file of the kind that its suffix names, in the units of the data."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from diffrep.commands.gallery import check_place
from diffrep.errors import UserError
from diffrep.files import replacing, write_bytes
from diffrep.runs.run import Run

GRID = ".png"
ARRAYS, TABLES = (".npy", ".npz"), (".csv", ".parquet")
CHANNELS = (1, 3, 4)  # of what a PNG can hold


def check_output(path: Path, run: Run) -> None:
    """Raise UserError before any work if examples of a run cannot be written to `path`."""
    if _is_folder(path):
        if len(run.card.shape) != 3 or run.card.shape[0] not in CHANNELS:
            shape = "x".join(map(str, run.card.shape))
            files = ".npy or .npz" if run.card.scaling is None else ".csv, .parquet, .npy or .npz"
            axes = ", or train a run with another data.layout if they are pictures" if run.card.scaling is None else ""
            raise UserError(f"{path} would hold pictures, and the data is {shape}: name a {files} file with -o{axes}.")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists and is not empty: name a new folder for the pictures.")
        check_place(path.with_suffix(GRID), GRID)
        return
    check_place(path, GRID, *ARRAYS, *TABLES)
    if is_grid(path) and run.card.scaling is not None:
        raise UserError(f"{path} is a picture, and the data is a table: name a .csv, .parquet, .npy or .npz file.")
    if path.suffix.lower() in TABLES and run.card.scaling is None:
        shape = "x".join(map(str, run.card.shape))
        raise UserError(f"{path} is a table, and the data is {shape} and no table: name a .npy, .npz or .png file.")


def is_grid(path: Path) -> bool:
    """Is one picture wanted, with all examples side by side?"""
    return path.suffix.lower() == GRID


def write(run: Run, examples: Mapping[str, Tensor], path: Path, covariate: Tensor | None = None) -> None:
    """Write x (N, *shape) of each name; the first is what was asked for, further ones stand beside it in an .npz.

    covariate (B, K): of each x, N of which are B examples once or several times, one time after the other.
    .npy, .npz: arrays as those of the data. .csv, .parquet: a table of its columns. No suffix: a folder of PNGs. Whole
    or absent.
    """
    suffix, name = path.suffix.lower(), next(iter(examples))
    if _is_folder(path):
        _pictures(run, examples[name], path)
        return

    def restored(x: Tensor) -> Any:
        return run.restore(x, None if covariate is None else covariate.repeat(len(x) // len(covariate), 1))

    if suffix in TABLES:
        write_bytes(path, _table(restored(examples[name]), suffix))
        return
    arrays: dict[str, Any] = {name: _array(restored(x)) for name, x in examples.items()}
    file = io.BytesIO()
    np.savez(file, **arrays) if suffix == ".npz" else np.save(file, arrays[name])
    write_bytes(path, file.getvalue())


def _is_folder(path: Path) -> bool:
    return not path.suffix


def _array(values: np.ndarray | pa.Table) -> np.ndarray:
    """Columns of a table side by side where all are numbers, else one named field for each."""
    if not isinstance(values, pa.Table):
        return values
    columns = {name: values.column(name) for name in values.column_names}
    if all(pa.types.is_floating(c.type) or pa.types.is_integer(c.type) for c in columns.values()):
        return np.column_stack([c.cast(pa.float64()).to_numpy() for c in columns.values()])
    kinds = [(name, "f8" if pa.types.is_floating(c.type) else "U64") for name, c in columns.items()]
    rows = np.empty(len(values), kinds)
    for name, kind in kinds:
        cells = columns[name].to_pylist()
        rows[name] = [("" if v is None else str(v)) if kind == "U64" else np.nan if v is None else v for v in cells]
    return rows


def _table(values: np.ndarray | pa.Table, suffix: str) -> bytes:
    import pyarrow.csv
    import pyarrow.parquet

    if not isinstance(values, pa.Table):
        values = pa.table({f"column{i + 1}": values[:, i] for i in range(values.shape[1])})
    file = io.BytesIO()
    if suffix == ".csv":
        pyarrow.csv.write_csv(values, file)
    else:
        pyarrow.parquet.write_table(values, file)
    return file.getvalue()


def _pictures(run: Run, x: Tensor, path: Path) -> None:
    """A PNG for each example, 00000.png and so on, of 8 bits, or of 16 for one channel of more than 256 grey levels.

    The lowest value is black, the highest white. The folder is whole or absent.
    """
    from PIL import Image

    bins = run.card.bins
    deep = bins is not None and bins > 2**8 and run.card.shape[0] == 1
    top = 2**16 - 1 if deep else 2**8 - 1
    share = (x.detach().cpu().double().clamp(-1, 1) + 1) / 2
    if bins is not None:  # the middle of a cell -> its grey level, in [0, 1]
        share = (share * bins - 0.5).round().clamp(0, bins - 1) / (bins - 1)
    grey = (share * top).round().numpy()
    grey = grey.astype(np.uint16 if deep else np.uint8).transpose(0, 2, 3, 1)
    with replacing(path) as temporary:
        temporary.mkdir()
        for i, picture in enumerate(grey):
            Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(temporary / f"{i:05d}.png")
