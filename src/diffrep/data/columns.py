"""The columns of a table: which are features, labels, factors and names of rows; how missing numbers are filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffrep.amounts import amount
from diffrep.data.names import IDS, LABELS, SPLITS, is_index, required_column, usual_column
from diffrep.data.raw import Raw, is_class_column, is_target, quantity_as_classes
from diffrep.data.reading import Guess, Reading
from diffrep.errors import UserError

ALL = "all"  # data.columns=all: columns of words are features too
WORDS = 50  # a column with more different words is not a label


@dataclass(frozen=True)
class Column:
    """A column by its name: kind "number", "word", "list" (of numbers) or "other"; values: (N,) numbers or words."""

    name: str
    kind: str
    values: np.ndarray | None = None

    def missing(self) -> bool:
        """Are all its values missing?"""
        if self.values is None:
            return False
        return bool(np.isnan(self.values).all()) if self.values.dtype.kind == "f" else False


def chosen(columns: Sequence[Column], name: str, reading: Reading, hub_label: str | None = None) -> Reading:
    """The reading with label, ids, features, words, factors and left-out columns decided.

    A run's reading asks for its features by name, wherever they stand. UserError: a column that was asked for is
    missing; no column of numbers.
    """
    by_name = {column.name: column for column in columns}
    if reading.applied and reading.features is not None:
        lacking = [c for c in (*reading.features, *reading.words) if c not in by_name]
        if lacking:
            shown = ", ".join(map(repr, lacking[:5])) + (", ..." if len(lacking) > 5 else "")
            raise UserError(
                f"{name} lacks {len(lacking):,} of the {len(reading.features) + len(reading.words):,} columns of the"
                f" training ({shown}): add them."
            )
        return reading
    for dropped in reading.drop:
        required_column(dropped, by_name, "column to drop")
    left = {c.name: c for c in columns if c.name not in reading.drop}
    asked = tuple(c for c in reading.features or () if c != ALL)
    for one in asked:
        required_column(one, left, "column")
    out = [*reading.drop, *(c.name for c in left.values() if c.missing())]
    left = {key: c for key, c in left.items() if key not in out}
    if reading.split is not None and reading.split.startswith("column "):
        left.pop(reading.split.removeprefix("column "), None)
    reading = with_label([c for c in left.values() if c.name not in asked], name, reading, hub_label)
    left.pop(reading.label or "", None)
    reading = _with_ids([c for c in left.values() if c.name not in asked], reading)
    left.pop(reading.ids or "", None)
    apart = [left.pop(key).name for key in (reading.covariate,) if key in left and key not in asked]  # a factor
    index = [key for key in left if is_index(key) and key not in asked]
    labels = [key for key in left if key.lower() in LABELS and key not in asked]
    targets = [key for key in labels if left[key].kind == "number"]
    written = [key for key, c in left.items() if c.kind == "word" and key not in asked]
    if reading.features is not None and ALL in reading.features:
        words = written
    elif asked:
        words = [key for key in asked if left[key].kind == "word"]
    elif any(c.kind == "list" for c in left.values()):
        words = []  # beside embeddings words are what is known of them
    else:
        words = [key for key in written if repeats(left[key].values)]
    factors = [key for key in written if key not in words and not nearly_unique(left[key].values)]
    if asked:
        numbers = [key for key in asked if left[key].kind in ("number", "list")]
        factors = [
            key for key, c in left.items() if key not in asked and c.kind in ("number", "word") and key not in index
        ]
    else:
        numbers = [key for key, c in left.items() if c.kind in ("number", "list") and key not in (*index, *labels)]
        factors = [*factors, *targets]
    factors += apart
    free = not asked and ALL not in (reading.features or ())
    doubt, doubts = "", []
    if words and free:
        shown = ", ".join(words[:5])
        doubt = f"The columns of words of {name} ({shown}) are features, one number a word: data.drop leaves them out."
    known = [key for key in written if key in factors and key not in words]
    if known and free:
        doubts.append(
            f"The words of {name} ({', '.join(known[:5])}) are factors and no features: data.columns=all makes features"
            " of them."
        )
    unique = [key for key in written if key not in words and key not in factors]
    if unique and free:
        doubts.append(f"{name} has another word in most rows of {', '.join(unique[:5])}: left out.")
    out += [key for key, c in left.items() if key not in (*numbers, *words, *factors)]
    decided = replace(reading, features=None) if not asked else reading
    decided = decided.guess("features", tuple(numbers)) if not asked else replace(reading, features=tuple(numbers))
    decided = decided.guess("factors", tuple(factors)) if factors else decided.decided(factors=())
    decided = decided.noted(*doubts)
    if words and free:
        decided = replace(decided, guesses=(*decided.guesses, Guess("words", doubt)))
    return decided.decided(words={key: vocabulary(left[key].values) for key in words}, left_out=tuple(out))


def with_label(columns: Sequence[Column], name: str, reading: Reading, hub_label: str | None = None) -> Reading:
    """The reading with its label column: the one asked for, that of a usual name, or the only column of a few words."""
    by_name = {column.name: column for column in columns}
    if reading.label is not None:
        if reading.label and not reading.applied and not reading.label.startswith("folder"):
            asked = by_name[required_column(reading.label, by_name, "label column")]
            return reading.noted(*quantity_as_classes(asked.values, asked.name, name))
        return reading
    columns = [column for column in columns if column.name != reading.covariate]
    by_name = {column.name: column for column in columns}
    column = hub_label if hub_label in by_name else usual_column(LABELS, by_name)
    if column is not None:
        one = by_name[column]
        values = one.values
        if values is not None and is_class_column(values) and (column == hub_label or not is_target(values)):
            return reading.guess("label", column)
        doubt = (
            f"Column {column!r} of {name} holds quantities, not classes, so it is a factor and not a feature: `diffrep"
            f" probe --labels {column}` regresses on it."
        )
        if one.kind in ("list", "other"):
            doubt = (
                f"Column {column!r} of {name} holds no single value for each example, so it is no label and left"
                " out: name another with data.label_column."
            )
        return reading.guess("label", "", doubt)
    words = [c for c in columns if c.kind == "word" and repeats(c.values)]
    if len(words) == 1:
        doubt = (
            f"Column {words[0].name!r} of {name}, the only one of words, was taken for the label: data.label_column"
            " changes it."
        )
        return reading.guess("label", words[0].name, doubt)
    return reading.guess("label", "")


def repeats(values: np.ndarray | None) -> bool:
    """Are these a few words that come again: 2 to `WORDS` of them, each twice on average at least?"""
    if values is None:
        return False
    different = len({v for v in values.tolist() if v})
    return 2 <= different <= WORDS and len(values) >= 2 * different


def nearly_unique(values: np.ndarray | None) -> bool:
    """Does more than every other row hold a word of its own, as names and free text do?"""
    return values is None or 2 * len({v for v in values.tolist() if v}) > len(values)


def _with_ids(columns: Sequence[Column], reading: Reading) -> Reading:
    if reading.ids is not None or reading.applied:
        return reading
    column = usual_column(IDS, [c.name for c in columns]) or next((c.name for c in columns if is_index(c.name)), None)
    return reading if column is None else reading.guess("ids", column)


def with_split(columns: Mapping[str, np.ndarray], name: str, reading: Reading) -> tuple[np.ndarray | None, Reading]:
    """(N,) of "train", "valid", "test", of the column asked for, or of one called split; the reading with it."""
    guess = reading.split is None and "split" in columns and not reading.applied
    if guess and {str(word).lower() for word in columns["split"]} <= set(SPLITS):
        reading = reading.guess("split", "column split")
    if reading.split is None or not reading.split.startswith("column "):
        return None, reading
    column = reading.split.removeprefix("column ")
    if reading.applied and column not in columns:
        return None, reading
    words = [str(word).lower() for word in columns[required_column(column, columns, "split column")]]
    if odd := sorted(set(words) - set(SPLITS)):
        raise UserError(
            f"column {column!r} of {name} has the split {odd[0]!r}, expected train, valid and test: rename it."
        )
    return np.array([SPLITS[word] for word in words]), reading


def vocabulary(values: np.ndarray | None) -> tuple[str, ...]:
    """The different words of a column, sorted; empty ones are missing and get no indicator."""
    assert values is not None
    return tuple(sorted({str(v) for v in values.tolist() if v not in (None, "")}))


def fitted(raw: Raw, rows: np.ndarray, name: str) -> Reading:
    """The reading with what a table is by its training `rows`: the words that they hold, and the value that fills a
    missing number, the mean of its column."""
    reading = raw.reading
    if reading.features is None:
        return reading
    if reading.words:
        reading = replace(reading, words={column: vocabulary(raw.words[column][rows]) for column in reading.words})
    table = raw.values.store.raw(_all(raw)).numpy()
    lacking = np.flatnonzero(np.isnan(table).any(0))
    if not len(lacking):
        return reading
    names = reading.number_names(raw.values.shape[0])
    means = {}
    for i in lacking:
        values = table[rows, i]
        means[names[i]] = float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
    shown = ", ".join(f"{names[i]!r} ({int(np.isnan(table[:, i]).sum()):,})" for i in lacking[:5])
    return replace(reading, fills=means).noted(
        f"{name} lacks numbers in {amount(len(lacking), 'column')}, {shown}: each is replaced by the mean of its"
        " column, and a further column marks where."
    )


def expanded(raw: Raw, name: str) -> np.ndarray:
    """(N, F) float64: numbers with missing ones filled, an indicator for each column that may lack some, and one for
    each word. UserError where a number is missing that was never missing in training."""
    reading = raw.reading
    table = raw.values.store.raw(_all(raw)).numpy()
    if reading.features is None:
        return table
    names = reading.number_names(raw.values.shape[0])
    place = {column: i for i, column in enumerate(names)}
    hole = np.isnan(table)
    for i in map(int, np.flatnonzero(hole.any(0))):
        if names[i] not in reading.fills:
            raise UserError(
                f"column {names[i]!r} of {name} lacks {amount(int(hole[:, i].sum()), 'number')} (NaN), the first in row"
                f" {int(hole[:, i].argmax())}, and lacked none in training: fill them."
            )
    pieces = [table]
    for column, mean in reading.fills.items():
        i = place[column]
        table[hole[:, i], i] = mean
        pieces.append(hole[:, i : i + 1].astype(np.float64))
    for column, words in reading.words.items():
        values = raw.words[column].astype(str)
        pieces.append((values[:, None] == np.array(words, dtype=str)[None]).astype(np.float64))
    return np.concatenate(pieces, 1)


def strange(raw: Raw, name: str) -> list[str]:
    """A sentence for each column with words that training did not have: none of its indicators is 1 there."""
    said = []
    for column, words in raw.reading.words.items():
        new = sorted({str(v) for v in raw.words[column].tolist() if v not in (None, "")} - set(words))
        if new:
            shown = ", ".join(new[:5]) + (", ..." if len(new) > 5 else "")
            said.append(f"Column {column!r} of {name} holds words that training lacks ({shown}): they count as none.")
    return said


def _all(raw: Raw) -> Any:
    import torch

    return torch.arange(len(raw.values.digests))


def stacked(
    parts: Mapping[str, Mapping[str, np.ndarray]], main: str, shared: Sequence[str], source: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """split -> name -> array (n, ...) becomes name -> (N, ...), of the shared names, and the split of each row.

    main: the array whose rows are the examples. UserError: splits of `source` that do not fit each other.
    """
    if len({part[main].shape[1:] for part in parts.values()}) > 1:
        raise UserError(f"the splits of {source} hold {main} of different shapes, expected one: reshape them.")
    for split, part in parts.items():
        for name in shared:
            if len(part[name]) != len(part[main]):
                raise UserError(
                    f"{source} holds {len(part[main]):,} {main} and {len(part[name]):,} {name} in its {split} split:"
                    " give one for each."
                )
    whole = {name: np.concatenate([part[name] for part in parts.values()]) for name in shared}
    return whole, np.repeat(list(parts), [len(part[main]) for part in parts.values()])
