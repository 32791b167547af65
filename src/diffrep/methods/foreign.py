"""Methods from outside: functions registered in this process, or entry points of installed packages."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

from diffrep.errors import UserError

GROUP = "diffrep.methods"  # of entry points: name = "package.module:function", a recipe or a Method
_handed: dict[str, Any] = {}  # package:function -> recipe or Method registered in this process


def reference(recipe: Callable) -> str:
    """package.module:function. UserError: it has no name."""
    module, name = getattr(recipe, "__module__", None), getattr(recipe, "__qualname__", None)
    if not callable(recipe) or module is None or name is None:
        raise UserError(f"{recipe!r} is no method: give a name, a function of parts, or a diffrep.Method with one.")
    return f"{module}:{name}"


def hand_over(recipe: Callable, whole: Any) -> str:
    """Register a recipe, or the `Method` around it, by its reference, which is returned."""
    name = reference(recipe)
    _handed[name] = whole
    return name


def lookup(name: str) -> Any:
    """The recipe or Method registered by that reference, or offered by an installed package; None: neither."""
    if name in _handed:
        return _handed[name]
    offered = _offered(name)
    return None if offered is None else offered.load()


def origin(name: str) -> dict[str, str | None] | None:
    """The record of a method from outside: package:function, and the package's version; None for our own."""
    offered = _offered(name)
    if offered is None and name not in _handed:
        return None
    return {"method": name if offered is None else offered.value, "version": version(name)}


def version(name: str) -> str | None:
    """The version of the installed package that a method comes from; None where it is not from one."""
    offered = _offered(name)
    if offered is not None and offered.dist is not None:
        return offered.dist.version
    package = name.split(":")[0].split(".")[0]
    owners = metadata.packages_distributions().get(package)
    return metadata.version(owners[0]) if owners else None


def _offered(name: str) -> metadata.EntryPoint | None:
    return next((point for point in metadata.entry_points(group=GROUP) if name in (point.name, point.value)), None)
