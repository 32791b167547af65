"""What was asked of a measurement: it stands in the file of results, so that a report can name the command again."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature


def asked(measure: Callable, **arguments: object) -> dict[str, object]:
    """Name -> value of those arguments of the function `measure` that are not its defaults."""
    usual = {name: parameter.default for name, parameter in signature(measure).parameters.items()}
    return {name: value for name, value in arguments.items() if value != usual[name]}
