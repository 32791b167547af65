"""Data sets of the Hugging Face hub, and objects of its library, through `datasets` (extra `hub`)."""

from __future__ import annotations

from typing import Any

from diffrep.data.names import split_of
from diffrep.data.raw import Raw
from diffrep.data.readers.tables import Piece, of_tables
from diffrep.data.reading import Reading
from diffrep.errors import UserError, reason_of


def read_hub(name: str, reading: Reading, skip_bad: bool) -> Raw:
    """A data set by its name on the hub. UserError: no such name, no connection, no package."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"there is no file or folder {name!r}, and a hub data set needs more: pip install 'diffrep[hub]'."
        ) from error
    try:
        splits = datasets.load_dataset(*([name] if reading.config is None else [name, reading.config]))
    except Exception as error:  # the hub's client raises its own, its network's and its file system's errors
        reason = reason_of(error)
        hint = ", and name one with data.config" if "onfig" in reason else ""
        raise UserError(
            f"there is no file or folder {name!r}, and the hub does not give a data set of that name ({reason}): "
            f"check the name and the connection{hint}."
        ) from error
    return of_datasets(splits, name, reading, skip_bad)


def of_datasets(splits: Any, name: str, reading: Reading, skip_bad: bool) -> Raw:
    """A DatasetDict, or a Dataset, of `datasets`."""
    tables = []
    for split, data in splits.items() if hasattr(splits, "items") else [("", splits)]:
        table = data.with_format("arrow")[:].replace_schema_metadata(data.features.arrow_schema.metadata)
        tables.append(Piece(table, f"{name} {split}".strip(), split_of(split) if split else None))
    return of_tables(tables, name, reading, skip_bad)
