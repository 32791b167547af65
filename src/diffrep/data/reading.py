"""How a data set is read: its columns, axes and scale, and which of these were guessed; kept with a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from diffrep.amounts import amount, item
from diffrep.errors import UserError

AXES = {"n": "examples", "c": "channels", "d": "depth", "t": "time", "h": "height", "w": "width", "l": "length"}
SETTINGS = {  # field of a reading -> the setting that overrides a guess of it
    "header": "data.header",
    "delimiter": "data.delimiter",
    "decimal": "data.delimiter",
    "config": "data.config",
    "split": "data.split_column",
    "picture": "data.column",
    "features": "data.columns",
    "label": "data.label_column",
    "ids": "data.drop",
    "words": "data.columns",
    "factors": "data.columns",
    "missing_label": "data.unlabelled",
    "layout": "data.layout",
    "levels": "data.levels",
    "range": "data.range",
    "counts": "data.counts",
}
LONG = 8  # items of a longer list that are printed


@dataclass(frozen=True)
class Guess:
    """A field that was guessed; doubt: a sentence where the guess may well be wrong, with what to do."""

    field: str
    doubt: str = ""


@dataclass(frozen=True)
class Reading:
    """How a data set is read. A field of None is still to be decided; what readers decide is marked in `guesses`.

    source: as given. place: the whole path of it. header: "yes" or "no"; delimiter, decimal: of a CSV file. config: of
    a hub. split: "column NAME", "folders", "files", "arrays", or "cut" by shares and seed. picture: the column, or the
    array, of the examples. features: columns of a table; fills: what a missing number becomes (its column has an
    indicator beside it); words: the words of a column of words, each an indicator. label: a column, "folder:1" for the
    first folder below those of splits, "" for none. factors, ids, left_out: further columns. layout: the axes of an
    array, such as "nhwc". levels: grey levels, 0 for continuous data; range: (low, high), the values of the first and
    the last grey level, or the values that become -1 and 1. counts: a table of counts is brought to 10,000 a row and
    log(1 + count). scaling: mean and standard deviation of each number of a table. classes: their names by number.
    missing_label: the number that stands for "no label", "none" where none does. mode: of pictures. size: (height,
    width) that they are brought to. upright: turned as their EXIF tag says. applied: decided by a run, and applied to
    other data. notes: sentences that a user should read. covariate: a column of groups that the decoder alone gets;
    covariates: its values in their order, and how many examples have each. columns: every column of a table in its
    order, and what it holds: "float", "int", "bool", "day", "second", "word" or "other", so that examples can be
    written as they were. rate: samples a second of sounds.
    """

    source: str = ""
    place: str = ""
    header: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    config: str | None = None
    split: str | None = None
    picture: str | None = None
    features: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    fills: Mapping[str, float] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    label: str | None = None
    factors: tuple[str, ...] | None = None
    ids: str | None = None
    left_out: tuple[str, ...] = ()
    layout: str | None = None
    shape: tuple[int, ...] | None = None
    levels: int | None = None
    range: tuple[float, float] | None = None
    counts: bool | None = None
    scaling: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    classes: tuple[str, ...] | None = None
    missing_label: int | str | None = None
    mode: str | None = None
    size: tuple[int, int] | None = None
    upright: bool = True
    applied: bool = False
    guesses: tuple[Guess, ...] = ()
    notes: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    rate: int | None = None
    covariate: str | None = None
    covariates: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.layout is not None and self.layout != "nf":
            odd = set(self.layout) - set(AXES)
            if odd or len(set(self.layout)) < len(self.layout) or "n" not in self.layout or len(self.layout) < 2:
                raise UserError(
                    f"data.layout={self.layout} is no order of axes, expected n and some of c, d, t, h, w, l, each "
                    "once, such as nhwc, nchw, ncl, nlc or ndhw."
                )
        if self.levels is not None and (self.levels == 1 or self.levels < 0 or self.levels > 2**31):
            raise UserError(f"data.levels={self.levels} is no number of grey levels, expected 2 or more.")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise UserError(f"data.range={list(self.range)} is empty, expected a lower and a higher number.")
        if self.size is not None and min(self.size) < 1:
            raise UserError(f"data.size={list(self.size)} is no size, expected height and width in pixels.")
        if self.header not in (None, "yes", "no"):
            raise UserError(f"data.header={self.header} is unknown, expected auto, yes or no.")

    def number_names(self, count: int) -> list[str]:
        """A name for each of the `count` numbers of a table: that of its column, its place where columns hold lists."""
        names = list(self.features or ())
        return names if len(names) == count else [f"number {i}" for i in range(count)]

    @classmethod
    def asked(
        cls,
        label_column: str | None = None,
        unlabelled: str | int = "auto",
        columns: tuple[str, ...] = (),
        drop: tuple[str, ...] = (),
        layout: str = "auto",
        levels: int | None = None,
        range: tuple[float, float] | None = None,
        counts: str = "auto",
        size: int | tuple[int, int] | None = None,
        header: str = "auto",
        delimiter: str | None = None,
        config: str | None = None,
        split_column: str | None = None,
        column: str | None = None,
        covariate: str | None = None,
    ) -> Reading:
        """A reading with the settings `data.*` of these names; the rest is still to be decided. UserError: no such
        value."""
        if counts not in ("auto", "yes", "no"):
            raise UserError(f"data.counts={counts} is unknown, expected auto, yes or no.")
        missing = None if unlabelled == "auto" else "none" if unlabelled == "none" else _whole(str(unlabelled))
        sizes = (size, size) if isinstance(size, int) else size
        return cls(
            label=label_column,
            missing_label=missing,
            features=tuple(columns) or None,
            drop=tuple(drop),
            layout=None if layout == "auto" else layout.lower(),
            levels=0 if range is not None and levels is None else levels,
            range=None if range is None else (float(range[0]), float(range[1])),
            counts=None if counts == "auto" else counts == "yes",
            size=None if sizes is None else (int(sizes[0]), int(sizes[1])),
            header=None if header == "auto" else header,
            delimiter=delimiter,
            config=config,
            split=None if split_column is None else f"column {split_column}",
            picture=column,
            covariate=covariate,
        )

    def guess(self, name: str, value: object, doubt: str = "") -> Reading:
        """The same with a guessed value of a field; unchanged where the field was decided before."""
        if getattr(self, name) is not None:
            return self
        guessed: dict[str, Any] = {name: value}
        return replace(self, guesses=(*self.guesses, Guess(name, doubt)), **guessed)

    def decided(self, **values: Any) -> Reading:
        """The same with fields that follow from the data, so that no other value is possible."""
        return replace(self, **values)

    def noted(self, *sentences: str) -> Reading:
        """The same with further notes: sentences that a user should read."""
        return replace(self, notes=(*self.notes, *sentences))

    def for_other(self) -> Reading:
        """The reading as a run applies it to other data: decisions stay, guesses and notes go."""
        return replace(self, applied=True, guesses=(), notes=())

    def doubts(self) -> list[str]:
        """A sentence for each doubtful guess, then the notes."""
        return [*dict.fromkeys([*(guess.doubt for guess in self.guesses if guess.doubt), *self.notes])]

    def lines(self) -> list[tuple[str, str, str]]:
        """(name, value, "guessed; SETTING says otherwise" or "") of every field that is decided."""
        guessed = {guess.field for guess in self.guesses}
        rows = []
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            if name in ("guesses", "notes", "applied", "shape", "scaling", "place", "drop", "columns") or value is None:
                continue
            if value in ((), {}) or (name == "upright" and self.mode is None):
                continue
            note = f"guessed; {SETTINGS[name]} says otherwise" if name in guessed else ""
            rows.append((name.replace("_", " "), _shown(name, value), note))
        return rows

    def line(self) -> str:
        """One line: shape, scale, label, and how many guesses there are."""
        words = [
            "x".join(map(str, self.shape or ())) + (f" from {self.layout}" if self.layout not in (None, "nf") else "")
        ]
        if self.scaling is not None:
            words.append("counts, log, standardised" if self.counts else "standardised")
        elif self.levels:
            words.append(amount(self.levels, "grey level"))
        elif self.range is not None:
            words.append(f"continuous from {self.range[0]:g} to {self.range[1]:g}")
        label = "no labels" if not self.label else f"label {self.label}"
        words.append(label + (f" ({amount(len(self.classes), 'class')})" if self.classes else ""))
        if self.covariate is not None:
            words.append(f"covariate {self.covariate} ({amount(len(self.covariates), 'value')})")
        if self.guesses:
            words.append(f"{amount(len(self.guesses), 'guess')} that `diffrep data` names")
        return ", ".join(words)

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping) -> Reading:
        """The reading that gave these values by `as_dict`; names of later versions are left out."""
        own = {one.name: values[one.name] for one in fields(cls) if one.name in values}
        guesses = tuple(Guess(**guess) for guess in own.pop("guesses", ()))
        words = {name: tuple(several) for name, several in own.pop("words", {}).items()}
        plain: dict[str, Any] = {name: _tuples(value) for name, value in own.items()}
        return cls(**plain, guesses=guesses, words=words)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"data.unlabelled={text} is unknown, expected auto, none or a whole number.") from error


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _shown(name: str, value: object) -> str:
    if name == "levels":
        return f"{value:,}" if value else "continuous"
    if name == "label" and not value:
        return "none"
    if name == "split":
        return "at random, by data.valid, data.test and seed" if value == "cut" else f"by {value}"
    if name == "missing_label":
        return "none, each number is a class" if value == "none" else f"written as {value}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{item(key)}: {_shown('', one)}" for key, one in list(value.items())[:LONG])
    if isinstance(value, tuple):
        shown = ", ".join(f"{one:g}" if isinstance(one, float) else item(str(one)) for one in value[:LONG])
        return f"{shown}, ... ({len(value):,} in all)" if len(value) > LONG else shown
    return f"{value:g}" if isinstance(value, float) else str(value)
