"""One split of a data set: its examples by position, their labels, names and factors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from diffrep.data.reading import Reading
from diffrep.data.stores import Grid, Store
from diffrep.errors import UserError
from diffrep.shapes import Batch, Draws, Shape

HISTOGRAM_EXAMPLES = 5000
DECIDES_X = ("features", "layout", "levels", "range", "counts", "scaling", "mode", "size", "upright")  # of a reading


@dataclass(frozen=True, eq=False)
class Examples:
    """One split of a data set.

    name: as the user gave it. split: "train", "valid" or "test". shape: of one example. bins: number of grey levels
    (256 for 8 bit), None when continuous. labels: (N,) int64, -1 where an example has none. ids: names of files or
    rows. factors: other columns, (N,) each. fingerprint: 16 hex digits over the examples and their order (labels stay
    out), the same on every machine. scaling: mean and standard deviation (F,) of the features of a table. reading: how
    the data was read. rows: (N,) places in the source, None where they are 0, 1, ... own_split: (N,) the splits that
    the source has. covariate: (N,) place of each example among `reading.covariates`, -1 where it is none of them.
    parts: the files of the source in its order, and the rows of each.
    """

    name: str
    split: str
    shape: Shape
    bins: int | None
    labels: Tensor | None
    label_names: list[str] | None
    ids: list[str] | None
    factors: dict[str, np.ndarray]
    fingerprint: str
    store: Store = field(repr=False)
    digests: np.ndarray = field(repr=False)  # (N, 32) uint8: SHA-256 of each example
    scaling: tuple[Tensor, Tensor] | None = None
    prepared: str = ""  # what was done to the numbers of a table, in words
    reading: Reading = field(default_factory=Reading, repr=False)
    rows: np.ndarray | None = field(default=None, repr=False)
    own_split: np.ndarray | None = field(default=None, repr=False)
    covariate: Tensor | None = field(default=None, repr=False)
    parts: tuple[tuple[str, int], ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def lazy(self) -> bool:
        """True: examples are read and decoded at each access. False: they are one tensor in memory."""
        return self.store.lazy

    def batch(self, index: Tensor, draws: Draws | None = None) -> Batch:
        """The examples at positions `index` (B,): x is (B, *shape) float32, in [-1, 1] but for tables."""
        x = Grid(self.bins).x(self.store.raw(index))
        label = None if self.labels is None else self.labels[index.to(self.labels.device)]
        return Batch(x, index.to(x.device), label, draws, self._covariate(index, x.device))

    def _covariate(self, index: Tensor, device: torch.device) -> Tensor | None:
        """(B, K): 1 at the value of each example, 0 elsewhere; None where one has a value that training lacked."""
        places = None if self.covariate is None else self.covariate[index.cpu()]
        if places is None or (places < 0).any():
            return None
        return one_hot(places, len(self.reading.covariates)).float().to(device)

    def to(self, device: torch.device | str) -> Examples:
        """The same split with its in-memory values and labels on `device`; lazily read sets stay where they are."""
        if self.lazy:
            return self
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, store=self.store.to(device), labels=labels)

    def subset(self, index: Tensor) -> Examples:
        """The examples at these positions, in this order; their fingerprint is their own."""
        index = torch.as_tensor(index, dtype=torch.int64).cpu()
        rows = index.numpy()
        return replace(
            self,
            labels=None if self.labels is None else self.labels[index.to(self.labels.device)],
            ids=None if self.ids is None else [self.ids[i] for i in rows],
            factors={name: column[rows] for name, column in self.factors.items()},
            fingerprint=fingerprint_of(self.shape, self.bins, self.digests[rows]),
            store=self.store.subset(index),
            rows=rows if self.rows is None else self.rows[rows],
            own_split=None if self.own_split is None else self.own_split[rows],
            digests=self.digests[rows],
            covariate=None if self.covariate is None else self.covariate[index],
        )

    def require_labels(self) -> Tensor:
        """The labels (N,); UserError where there are none."""
        if self.labels is None:
            pictures = "put pictures in class folders or beside a metadata.csv with a label column, or name its column"
            how = "name their column" if self.scaling is not None else pictures
            raise UserError(
                f"the {self.split} split of {self.name} has no labels, which are needed here: {how} with"
                " data.label_column."
            )
        return self.labels

    def labelled(self) -> tuple[Examples, Tensor]:
        """The examples that have a label, and their labels on the CPU; UserError where no example has one."""
        rows = (self.require_labels().cpu() >= 0).nonzero()[:, 0]
        subset = self.subset(rows)
        return subset, subset.require_labels().cpu()

    def places(self, index: Tensor) -> np.ndarray:
        """(B,) the places of these examples in the source."""
        return index.numpy() if self.rows is None else self.rows[index.numpy()]

    def evenly(self, most: int) -> Tensor:
        """At most `most` positions, evenly from the first to the last; all of them where there are fewer."""
        return torch.from_numpy(evenly(np.arange(len(self)), most))

    def labelled_first(self, most: int) -> Tensor:
        """As `evenly`, but examples without a label come in only where room is left beside those with one."""
        if self.labels is None:
            return self.evenly(most)
        return torch.from_numpy(labelled_first(self.labels.cpu().numpy() >= 0, most))

    def entropy(self) -> tuple[float, int]:
        """Nats by which the examples differ, each of them as frequent as it occurs, and the number of different ones.

        No code of them carries more. Where all differ it is the log of their number, which says nothing of new ones.
        """
        counts = np.unique(self.digests, axis=0, return_counts=True)[1]
        shares = counts / len(self)
        return float(-(shares * np.log(shares)).sum()), len(counts)

    def content(self) -> str:
        """16 hex digits over x of every example. The fingerprint is over the examples as they are stored, so sets that
        are read in two ways share it. Of a lazily read set: over the fingerprint and how it is read."""
        sha = hashlib.sha256(f"{self.shape} {self.bins} ".encode())
        if self.lazy:
            sha.update(f"{self.fingerprint} {[getattr(self.reading, name) for name in DECIDES_X]}".encode())
            return sha.hexdigest()[:16]
        for rows in torch.arange(len(self)).split(1000):
            sha.update(self.store.raw(rows).cpu().numpy().tobytes())
        return sha.hexdigest()[:16]

    def histogram(self) -> Tensor | None:
        """Counts (C, bins) of grey levels, int64, over at most 5,000 evenly spaced examples; None when continuous."""
        if self.bins is None:
            return None
        channels = self.shape[0]
        counts = torch.zeros(channels * self.bins, dtype=torch.int64)
        offset = self.bins * torch.arange(channels)[:, None]
        for chunk in self.evenly(HISTOGRAM_EXAMPLES).split(500):
            grey = self.store.raw(chunk).cpu().long().reshape(len(chunk), channels, -1)
            counts += torch.bincount((grey + offset).flatten(), minlength=len(counts))
        return counts.reshape(channels, self.bins)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel of x (C,), float64, over at most 5,000 evenly spaced examples."""
        total = square = torch.zeros(self.shape[0], dtype=torch.float64)
        rows = self.evenly(HISTOGRAM_EXAMPLES)
        for chunk in rows.split(500):
            x = self.batch(chunk).x.cpu().double().reshape(len(chunk), self.shape[0], -1)
            total, square = total + x.mean(2).sum(0), square + x.square().mean(2).sum(0)
        mean = total / len(rows)
        return mean, (square / len(rows) - mean**2).clamp(min=0)


def labelled_first(labelled: np.ndarray, most: int) -> np.ndarray:
    """At most `most` positions, rising, evenly chosen: those that are labelled (N,), then others where room is left."""
    first = evenly(np.flatnonzero(labelled), most)
    return np.sort(np.concatenate([first, evenly(np.flatnonzero(~labelled), most - len(first))]))


def evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows (N,), from the first to the last."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)]


def fingerprint_of(shape: Shape, bins: int | None, digests: np.ndarray) -> str:
    """16 hex digits over the shape, the number of grey levels and the examples (N, 32) in their order."""
    return hashlib.sha256(f"{shape} {bins} ".encode() + digests.tobytes()).hexdigest()[:16]
