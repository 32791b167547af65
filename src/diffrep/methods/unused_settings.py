"""Which settings were read: so that one which has no effect is told, and is no surprise."""

from __future__ import annotations

from typing import cast

from pydantic import BaseModel

from diffrep.config import Settings


class _Watched:
    """Stands for settings, and notes the dotted name of each value that is read."""

    def __init__(self, section: BaseModel, prefix: str, read: set[str]):
        self._section, self._prefix, self._read = section, prefix, read

    def __getattr__(self, name: str) -> object:
        value = getattr(self._section, name)
        if isinstance(value, BaseModel):
            return _Watched(value, f"{self._prefix}{name}.", self._read)
        self._read.add(f"{self._prefix}{name}")
        return value


def watched(settings: Settings) -> tuple[Settings, set[str]]:
    """The settings to hand on, and the dotted names of those read so far."""
    read: set[str] = set()
    return cast(Settings, _Watched(settings, "", read)), read


def unheeded(settings: Settings, read: set[str], sections: tuple[str, ...]) -> list[str]:
    """The settings of these sections that differ from their defaults and were not read, as name=value."""
    found = []
    for section in sections:
        chosen, plain = getattr(settings, section), getattr(Settings(), section)
        pairs = (
            [(f"{section}.{name}", getattr(chosen, name), getattr(plain, name)) for name in type(chosen).model_fields]
            if isinstance(chosen, BaseModel)
            else [(section, chosen, plain)]
        )
        found += [f"{name}={value}" for name, value, default in pairs if value != default and name not in read]
    return found
