"""Cells of single-cell data: AnnData and `.h5ad` files (extra `cells`), a table of genes with what `obs` says."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from diffrep.data.columns import Column, with_label, with_split
from diffrep.data.names import required_column
from diffrep.data.raw import Raw, as_labels
from diffrep.data.reading import Reading
from diffrep.data.stores import SMALL, Grid, OnDisk, Store
from diffrep.data.values import COUNTED, STANDARDISED, Values, are_counts, counted, of_table
from diffrep.errors import UserError, reason_of

COUNTS = "counts"  # the layer that holds counts where X holds something else
LOOKED = 1000  # cells of a large file that are looked at to tell counts from other numbers


def is_cells(source: object) -> bool:
    """Is this an AnnData?"""
    return all(hasattr(source, name) for name in ("obs", "var_names", "layers", "obsm", "X"))


def read_h5ad(path: Path, reading: Reading, skip_bad: bool) -> Raw:
    """A file, opened without loading its matrices; of a large one cells are read when they are used."""
    return of_cells(opened(path), str(path), reading)


def opened(path: Path) -> Stored:
    """The cells of a file, whose matrices stay there. UserError: no package, a broken file."""
    try:
        import h5py
        from anndata.io import read_elem
    except ImportError as error:
        raise UserError(f"{path} needs more: pip install 'diffrep[cells]', or save its counts as .npz.") from error
    try:
        file = h5py.File(path, "r")
        obs, var = (read_elem(file[name]) for name in ("obs", "var"))
        return Stored(obs, var.index, file)
    except Exception as error:  # h5py and anndata raise many kinds
        raise UserError(f"{path} cannot be read as .h5ad ({reason_of(error)}): write it anew with anndata.") from error


@dataclass(frozen=True)
class Stored:
    """Of a file what `of_cells` asks of an AnnData. A matrix is opened when it is asked for: of a sparse one the ends
    of its rows are read then, and all of one that is stored by columns."""

    obs: Any
    var_names: Any
    file: Any

    @property
    def X(self) -> Any:
        return on_disk(self.file["X"]) if "X" in self.file else None

    @property
    def layers(self) -> Layers:
        return Layers(self.file.get("layers", {}))

    @property
    def n_obs(self) -> int:
        return len(self.obs)

    @property
    def obs_names(self) -> Any:
        return self.obs.index


class Layers(Mapping[str, Any]):
    """The layers of a file, by name."""

    def __init__(self, group: Any):
        self.group = group

    def __getitem__(self, name: str) -> Any:
        return on_disk(self.group[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.group)

    def __len__(self) -> int:
        return len(self.group)

    def __contains__(self, name: object) -> bool:
        return name in self.group


class SparseRows:
    """Rows of a sparse matrix in a file (CSR: data, indices, indptr), read when they are asked for."""

    def __init__(self, group: Any):
        self.shape = tuple(int(n) for n in group.attrs["shape"])
        self.starts = group["indptr"][...].astype(np.int64)
        self.values, self.columns = OnDisk(group["data"]), OnDisk(group["indices"])

    def __getitem__(self, rows: np.ndarray) -> sparse.csr_matrix:
        """Rows (B,), rising."""
        spans = list(zip(self.starts[rows], self.starts[rows + 1], strict=True))
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:  # one piece of the file
            spans = [(spans[0][0], spans[-1][1])]
        values, columns = (
            np.concatenate([stored[a:b] for a, b in spans]) if spans else np.empty(0)
            for stored in (self.values, self.columns)
        )
        ends = np.concatenate([[0], np.cumsum(self.starts[rows + 1] - self.starts[rows])])
        return sparse.csr_matrix((values, columns, ends), shape=(len(rows), self.shape[1]))


def on_disk(matrix: Any) -> Any:
    """A matrix of an open file, as h5py or anndata give it, by rows; one that is stored by columns (CSC) is loaded.

    A matrix in memory stays as it is.
    """
    node = getattr(matrix, "group", matrix)  # anndata has its own view of a sparse one
    if not hasattr(node, "attrs"):
        return matrix
    if not hasattr(node, "keys"):
        return OnDisk(node)
    if node.attrs.get("encoding-type") == "csc_matrix":
        from anndata.io import read_elem

        return read_elem(node).tocsr()
    return SparseRows(node)


def of_cells(cells: Any, name: str, reading: Reading) -> Raw:
    """Cells x genes as a table, labels and factors from `obs`.

    The matrix is the layer that `data.column` names, else the layer `counts` where there is one, else X. A run asks for
    its genes by name, wherever they stand. UserError: genes of the run that are missing, genes that share a name.
    """
    matrix, reading = _matrix(cells, name, reading)
    genes = [str(gene) for gene in cells.var_names]
    if len(set(genes)) < len(genes):
        [(twice, _)] = Counter(genes).most_common(1)
        raise UserError(f"{name} has the gene {twice!r} twice: adata.var_names_make_unique() tells them apart.")
    asked = genes if reading.features is None else list(reading.features)
    if lacking := sorted(set(asked) - set(genes)):
        shown = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        raise UserError(
            f"{name} lacks {len(lacking):,} of the {len(asked):,} genes of the training ({shown}): add them, as zeros"
            " where they were not measured."
        )
    place = {gene: i for i, gene in enumerate(genes)}
    rows = Rows(on_disk(matrix), np.array([place[gene] for gene in asked]), torch.arange(cells.n_obs))
    reading = reading.decided(features=tuple(asked))
    if cells.n_obs * len(asked) * 8 <= SMALL:
        values, reading = of_table(rows.numbers(rows.rows), name, reading, asked)
    else:
        values, reading = _lazy(rows, name, reading)
    columns = [_column(cells.obs[key], str(key)) for key in cells.obs.columns]
    by_name = {c.name: c.values for c in columns if c.values is not None}
    split, reading = with_split(by_name, name, reading)
    reading = with_label([c for c in columns if f"column {c.name}" != reading.split], name, reading)
    label = by_name.get(reading.label or "")
    labels = None if label is None else as_labels(label, f"{reading.label!r} of {name}")
    factors = {key: v for key, v in by_name.items() if key != reading.label and f"column {key}" != reading.split}
    reading = reading.guess("factors", tuple(factors)) if factors else reading
    return Raw(values, reading, split, labels, None, [str(cell) for cell in cells.obs_names], factors)


class Rows(Store):
    """Cells of a matrix, dense or sparse, in memory or in its file; made dense when they are asked for.

    counted: each row brought to 10,000 and its logarithm taken. raw: (B, F) float64.
    """

    lazy = True

    def __init__(self, matrix: Any, genes: np.ndarray, rows: Tensor, counted: bool = False):
        self.matrix, self.genes, self.rows, self.counted = matrix, genes, rows, counted
        self.all = len(genes) == matrix.shape[1] and bool((genes == np.arange(len(genes))).all())

    def numbers(self, rows: Tensor) -> np.ndarray:
        """The matrix at these rows, as it is; float64."""
        wanted, back = np.unique(rows.numpy(), return_inverse=True)  # files are read in rising order
        part = self.matrix[wanted]
        dense = part.toarray() if sparse.issparse(part) else np.asarray(part)
        return (dense if self.all else dense[:, self.genes])[back].astype(np.float64)

    def raw(self, index: Tensor) -> Tensor:
        table = self.numbers(self.rows[index.cpu()])
        return torch.from_numpy(counted(table) if self.counted else table)

    def subset(self, index: Tensor) -> Rows:
        return Rows(self.matrix, self.genes, self.rows[index.cpu()], self.counted)

    def to(self, device: torch.device | str) -> Rows:
        return self


def _matrix(cells: Any, name: str, reading: Reading) -> tuple[Any, Reading]:
    if reading.picture is None and COUNTS in cells.layers:
        doubt = f"{name} has a layer {COUNTS!r}, which is read in place of X: data.column names another."
        reading = reading.guess("picture", COUNTS, doubt)
    if reading.picture is not None and not (reading.applied and reading.picture not in cells.layers):
        return cells.layers[required_column(reading.picture, cells.layers, "layer")], reading
    if (x := cells.X) is None:
        layers = ", ".join(cells.layers) or "none"
        raise UserError(f"{name} has no X, and these layers: {layers}. Name one with data.column.")
    return x, reading


def _lazy(rows: Rows, name: str, reading: Reading) -> tuple[Values, Reading]:
    """A table too large for memory: its first cells tell whether it is one of counts, and each is looked at once."""
    head = rows.numbers(rows.rows[:LOOKED])
    whole = bool((head == np.rint(head)).all() and head.min() >= 0)
    if reading.counts is None:
        counts = whole and not reading.applied and are_counts(head)
        doubt = (
            f"{name} was taken for counts, so each cell is brought to 10,000 and log(1 + count): else data.counts=no."
        )
        reading = reading.guess("counts", counts, doubt if counts else "")
    digests = []
    for part in rows.rows.split(LOOKED):
        table = rows.numbers(part)
        if not np.isfinite(table).all() or (reading.counts and table.min() < 0):
            raise UserError(f"{name} holds negative or missing numbers: mend it, or set data.counts=no.")
        digests += [hashlib.sha256(row.tobytes()).digest() for row in table]
    store = Rows(rows.matrix, rows.genes, rows.rows, bool(reading.counts))
    hashes = np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), 32)
    prepared = (COUNTED if reading.counts else "") + STANDARDISED
    return Values(store, (len(rows.genes),), Grid(None), hashes, table=True, prepared=prepared), reading


def _column(values: Any, name: str) -> Column:
    """A column of `obs`."""
    if values.dtype.kind in "biuf":
        return Column(name, "number", values.to_numpy())
    words = values.astype(object).where(values.notna(), "")
    return Column(name, "word", np.array([str(word) for word in words]))
