"""A number with its noun, or with its standard error, and an item of a list, in words."""

from __future__ import annotations

import json
import math


def amount(count: int, noun: str) -> str:
    """ "1 example", "2,000 examples"; the plural of a noun of several words is that of its last one."""
    ending = "" if count == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{count:,} {noun}{ending}"


def item(word: str) -> str:
    """A word of a list that has commas between its words: in quotation marks where it could be taken for several."""
    odd = not word or word != word.strip() or any(mark in word for mark in ',;"')
    return json.dumps(word, ensure_ascii=False) if odd else word


def plus_minus(value: float, error: float | None, form: str = ".4f") -> str:
    """ "1.2345 +- 0.0012", both in this format; a text without it where the error is None or nan."""
    if error is None or math.isnan(error):
        return f"{value:{form}} (one example has no error)"
    return f"{value:{form}} +- {error:{form}}"
