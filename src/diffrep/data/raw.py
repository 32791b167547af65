"""A data set as its source gives it, before it is cut into splits, and the classes of its labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from diffrep.amounts import amount
from diffrep.data.names import LABELS, in_order, required_column
from diffrep.data.reading import Reading
from diffrep.data.streams.shards import Shards
from diffrep.data.values import Values
from diffrep.errors import UserError

MANY = 20  # more different whole numbers than these are classes only if they repeat
REPEAT = 5  # examples that each of them must then have, on average


@dataclass(frozen=True)
class Raw:
    """N examples of all splits together, in the order of the source.

    split: (N,) of "train", "valid", "test" where the source has its own. labels: (N,) integers or words, None where
    an example has none. words: columns of words that are features. rows: (N,) places in the source. parts: the files
    that the source consists of, in its order, and the rows of each. skipped: files that could not be read. shards: all
    training examples, where those here are a sample of them.
    """

    values: Values
    reading: Reading
    split: np.ndarray | None = None
    labels: np.ndarray | None = None
    label_names: list[str] | None = None
    ids: list[str] | None = None
    factors: dict[str, np.ndarray] = field(default_factory=dict)
    words: dict[str, np.ndarray] = field(default_factory=dict)
    rows: np.ndarray | None = None
    parts: tuple[tuple[str, int], ...] = ()
    skipped: int = 0
    shards: Shards | None = None

    def covariates(self, rows: Tensor) -> tuple[Tensor | None, Reading]:
        """The place of each example, (N,) int64, among the values of `data.covariate`, and the reading with them.

        None without a covariate, or where a run's is not there. The values are those of the training examples, `rows`;
        another is -1, with a note. UserError: no such column; a column that forms no groups, or has gaps.
        """
        reading, name = self.reading, self.reading.covariate
        columns = dict(self.factors) if self.labels is None else {reading.label or "": self.labels, **self.factors}
        if name is None or (reading.applied and name not in columns):
            return None, reading
        values = [_value(v) for v in columns[required_column(name, columns, "covariate")].tolist()]
        if not reading.applied:
            if gaps := values.count(""):
                raise UserError(
                    f"column {name!r} of {reading.source} has no value in {gaps:,} of {amount(len(values), 'row')}, and"
                    " a covariate needs one in each: fill them."
                )
            trained = [values[row] for row in rows.tolist()]
            counts = Counter(trained)
            if not 1 < len(counts) <= len(trained) / 2:
                raise UserError(
                    f"column {name!r} of {reading.source} holds {amount(len(counts), 'value')} in"
                    f" {amount(len(trained), 'row')} of training, expected two groups or more, of at least two"
                    " rows on average: name another with data.covariate."
                )
            reading = replace(reading, covariates={value: counts[value] for value in in_order(counts)})
        place = {value: number for number, value in enumerate(reading.covariates)}
        if strange := [value or "no value" for value in in_order(set(values) - set(place))]:
            reading = reading.noted(
                f"column {name!r} of {reading.source} holds {', '.join(strange[:5])}, which training did not have:"
                " these examples can be encoded and not decoded."
            )
        return torch.tensor([place.get(value, -1) for value in values]), reading

    def classes(self) -> tuple[Tensor | None, list[str] | None, Reading]:
        """Labels (N,) int64 with their names, and the reading with them; None where no example has one.

        The reading of a run numbers them as the run does; a class that the run does not have is -1, with a note.
        """
        if self.labels is None:
            return None, None, self.reading
        reading = self.reading
        if reading.missing_label is None:
            different = set(self.labels.tolist())
            guess, doubt = missing_label(different, self.label_names)
            if -1 in different and not self.label_names:
                reading = reading.guess("missing_label", "none" if guess is None else guess, doubt)
            else:
                reading = reading.decided(missing_label=guess)
        missing = reading.missing_label if isinstance(reading.missing_label, int) else None
        classes = reading.classes if reading.applied else None
        if classes is None:
            labels, names = numbered(self.labels, self.label_names, missing)
            return labels, names, reading if names is None else replace(reading, classes=tuple(names))
        place = {name: number for number, name in enumerate(classes)}
        present = _present(self.labels, missing)
        called = [
            _called(label, self.label_names) if here else "" for label, here in zip(self.labels, present, strict=True)
        ]
        strange = sorted({name for name, here in zip(called, present, strict=True) if here and name not in place})
        if strange:
            reading = reading.noted(
                f"{reading.source} has {amount(len(strange), 'class')} beside those of the training, with the"
                f" label -1 here: {', '.join(strange[:5])}{', ...' if len(strange) > 5 else ''}."
            )
        numbers = [place.get(name, -1) if here else -1 for name, here in zip(called, present, strict=True)]
        return torch.tensor(numbers, dtype=torch.int64), list(classes), reading


def _value(value: object) -> str:
    """A value of a covariate as a word: 1 and 1.0 are one; a missing one is empty."""
    if value is None or value != value:  # NaN
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _called(label: object, names: list[str] | None) -> str:
    """The name of a class as a source writes it."""
    if names and isinstance(label, int) and 0 <= label < len(names):
        return names[label]
    return str(label)


def _present(labels: np.ndarray, missing: int | None) -> np.ndarray:
    values = labels.tolist()
    none = {v for v in set(values) if v in (None, "") or v != v or (missing is not None and v == missing)}
    return np.array([value not in none for value in values], bool) if none else np.ones(len(values), bool)


def missing_label(labels: Collection[object], names: list[str] | None = None) -> tuple[int | None, str]:
    """(-1, "") where -1 stands for "no label", (None, "") where it is a class, and a sentence where it may be either.

    It is a class beside other negative numbers, and beside 1 alone (-1 and 1); it is none beside names of classes.
    """
    numbers = {label for label in labels if isinstance(label, int) and not isinstance(label, bool)}
    if -1 not in numbers:
        return (-1, "")
    if names:
        return -1, ""
    others = numbers - {-1}
    if others == {1} or min(others, default=0) < 0:
        return None, ""
    if others == {0, 1}:
        return -1, "The labels are -1, 0 and 1, and -1 was taken for no label: data.unlabelled=none if it is a class."
    return -1, ""


def numbered(
    labels: np.ndarray, label_names: list[str] | None = None, missing: int | None = -1
) -> tuple[Tensor | None, list[str] | None]:
    """Labels (N,) as `as_labels` gives them -> int64 with their names: names given are kept, others are the values in
    order, numbers as numbers. Empty words, NaN, None and the number `missing` are unlabelled, -1."""
    present = _present(labels, missing)
    values = set(labels[present].tolist())
    if not values:
        return None, None
    if label_names and all(isinstance(k, int) and 0 <= k < len(label_names) for k in values):
        place: dict = {k: k for k in values}
        names = list(label_names)
    else:
        names = in_order(str(k) for k in values)
        number = {name: i for i, name in enumerate(names)}
        place = {k: number[str(k)] for k in values}
    numbers = [place[k] if here else -1 for k, here in zip(labels.tolist(), present, strict=True)]
    return torch.tensor(numbers, dtype=torch.int64), names


def keep(raw: Raw, kept: np.ndarray, total: int) -> Raw:
    """Everything beside the values, at the positions `kept` of `total`; the rest counts as skipped."""
    return replace(
        raw,
        split=None if raw.split is None else raw.split[kept],
        labels=None if raw.labels is None else raw.labels[kept],
        ids=None if raw.ids is None else [raw.ids[i] for i in kept],
        factors={name: column[kept] for name, column in raw.factors.items()},
        rows=kept if raw.rows is None else raw.rows[kept],
        skipped=raw.skipped + total - len(kept),
    )


def is_class_column(values: np.ndarray) -> bool:
    """Words or whole numbers: a column of other numbers is a quantity and no label."""
    if values.ndim != 1:
        return False
    if values.dtype.kind != "f":
        return values.dtype.kind in "biuUSO"
    finite = values[np.isfinite(values)]
    return bool((finite == np.rint(finite)).all())


def is_target(values: np.ndarray) -> bool:
    """Whole numbers that hardly repeat: a quantity to be regressed on, such as a price, and no class."""
    if values.dtype.kind not in "iuf":
        return False
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    different = len(np.unique(finite))
    return different > MANY and len(finite) < REPEAT * different


def quantity_as_classes(values: np.ndarray | None, column: str, name: str) -> tuple[str, ...]:
    """A sentence where a column was asked for as the label and looks like a quantity."""
    if values is None or values.dtype.kind not in "iuf" or values.ndim > 1:
        return ()
    apart = "" if column.lower() in LABELS else ", name the features with data.columns"
    instead = f"leave data.label_column out{apart}, and `diffrep probe RUN --labels {column}` regresses on it."
    if not is_class_column(values):
        raise UserError(f"column {column!r} of {name} holds quantities, which are no classes: {instead}")
    if not is_target(values):
        return ()
    return (
        f"Column {column!r} of {name} holds {len(set(values.tolist())):,} different whole numbers, and each is a class:"
        f" if it is a quantity, {instead}",
    )


def as_labels(values: np.ndarray, name: str) -> np.ndarray:
    """A column of labels as Python objects: words, whole numbers, None where there is none."""
    if values.ndim != 1 or not is_class_column(values):
        raise UserError(f"{name} cannot be labels (shape {values.shape}, {values.dtype}), expected (N,) whole numbers.")
    if values.dtype.kind == "f":
        values = np.array([int(v) if np.isfinite(v) else None for v in values], object)
    values = values.astype(object)
    kinds = set(map(type, values.tolist())) - {type(None)}
    odd = next((kind for kind in kinds if not issubclass(kind, (str, int, float, np.generic))), None)
    if odd is not None:
        raise UserError(f"{name} cannot be labels (one is a {odd.__name__}), expected words or whole numbers.")
    if len({issubclass(kind, str) for kind in kinds}) == 2 and {True, False} == {
        isinstance(v, str) for v in values if v is not None and v == v
    }:  # words beside numbers
        values = np.array([None if v is None or v != v else str(v) for v in values], object)
    return values
