"""Settings that a method never reads, so that a warning can name them."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, PrivateAttr

from diffrep.config import Settings

Section = TypeVar("Section", bound=BaseModel)


def recorded(section: Section, read: set[str], prefix: str = "") -> Section:
    """The same values in an object of the same type that adds the dotted name of each value to `read` when the value is
    read.

    Sections inside of a section are recorded too.
    """
    values: dict[str, Any] = {
        name: recorded(value, read, f"{prefix}{name}.") if isinstance(value, BaseModel) else value
        for name, value in section
    }
    copy: Any = _telling(type(section)).model_construct(**values)
    copy._told = (read, prefix)
    return copy


@cache
def _telling(kind: type[BaseModel]) -> type[BaseModel]:
    """A class of the same values that tells which of them is read; made once, since that takes milliseconds."""

    def ask(self: Any, name: str) -> Any:
        if name in kind.model_fields:
            read, prefix = self._told
            read.add(f"{prefix}{name}")
        return kind.__getattribute__(self, name)

    own = {"__getattribute__": ask, "__module__": kind.__module__, "_told": PrivateAttr(default=None)}
    return type(kind.__name__, (kind,), own)


def unread(settings: Settings, read: set[str], sections: tuple[str, ...]) -> list[str]:
    """The settings of these sections that differ from their defaults and are not in `read`, as name=value."""
    names = []
    for section in sections:
        chosen, plain = getattr(settings, section), getattr(Settings(), section)
        pairs = (
            [(f"{section}.{name}", getattr(chosen, name), getattr(plain, name)) for name in type(chosen).model_fields]
            if isinstance(chosen, BaseModel)
            else [(section, chosen, plain)]
        )
        names += [f"{name}={value}" for name, value, default in pairs if value != default and name not in read]
    return names
