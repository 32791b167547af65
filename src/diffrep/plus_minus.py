"""A number and its standard error, in words."""

from __future__ import annotations

import math


def plus_minus(value: float, error: float | None, form: str = ".4f") -> str:
    """ "1.2345 +- 0.0012", both in this format; a text without it where the error is None or nan."""
    if error is None or math.isnan(error):
        return f"{value:{form}} (one example has no error)"
    return f"{value:{form}} +- {error:{form}}"
