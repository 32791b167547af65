"""Writes docs/methods.md and a page for each method: `python docs/write_pages.py`, which `make docs` runs.

The catalogue gives names, papers and abilities, `methods.toml` equations and uses, the code the recipes, and `results/`
the numbers.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from diffrep import config
from diffrep.methods.catalog import METHODS, Method

HERE = Path(__file__).parent
ABOUT: dict[str, dict[str, Any]] = tomllib.loads((HERE / "methods.toml").read_text())
DATA = {"digits": "digits, 20,000 examples", "mnist": "MNIST, 40,000 examples", "cifar10": "CIFAR-10, 20,000 examples"}
COLUMNS = {  # of results/benchmark-*.json
    "linear probe": "probe_linear",
    "kNN": "probe_knn",
    "10 labels a class": "probe_few10",
    "bits/dim": "bits_per_dim",
    "rate, nats": "rate_nats",
    "seconds": "seconds",
}
BEFORE = (
    "The numbers are those of small budgets on one core. They were made before the defaults changed"
    " (the code as an observation, coarse levels, Muon), and have not been made again."
)


def overview() -> str:
    """docs/methods.md: a row for each method."""
    lines = [
        "# Methods",
        "",
        "Each method is a recipe of the same parts, and has a page: equation, recipe, the settings of its paper, what"
        " it is good for, and its numbers. [How to choose](choose.md) compares them.",
        "",
        "| method | what it is | code | decoder | bound | paper |",
        "|---|---|---|---|---|---|",
    ]
    for name, method in METHODS.items():
        has = " | ".join("yes" if ability else "" for ability in (method.has_code, method.decodes, method.has_bound))
        lines.append(f"| [{name}](methods/{name}.md) | {method.summary} | {has} | {method.paper} |")
    return "\n".join([*lines, ""])


def page(name: str) -> str:
    """docs/methods/NAME.md."""
    method, about = METHODS[name], ABOUT[name]
    sections = {
        "Equation": [f"    {about['equation']}"],
        "Recipe": [*_abilities(method), "", "```py", *_sources(method.build), "```"],
        "The paper's settings": _papers_settings(name),
        "What it is good for": [about["use"]],
        "Numbers": _numbers(name),
    }
    lines = [f"# {name}", "", f"{method.summary[0].upper()}{method.summary[1:]}.", "", f"Paper: {method.paper}.", ""]
    for title, body in sections.items():
        lines += [f"## {title}", "", *body, ""]
    return "\n".join(lines)


def _abilities(method: Method) -> list[str]:
    has = {"a code": method.has_code, "a decoder": method.decodes, "a bound": method.has_bound}
    lines = [f"It has {', '.join(thing if it else thing.replace('a ', 'no ') for thing, it in has.items())}."]
    if method.noise:
        lines.append(f"Its noise process is `{method.noise}`.")
    if method.twin:
        lines.append(f"The same without a code is [{method.twin}]({method.twin}.md).")
    return [" ".join(lines)]


def _sources(recipe: Callable) -> Iterator[str]:
    """The source of the recipe, and of the recipe that it calls, if it only calls another."""
    text = inspect.getsource(recipe)
    yield from text.rstrip().splitlines()
    called = re.search(r"^    return ([a-z]\w*)\(parts", text, re.MULTILINE)
    if called:
        yield from ("", "")
        yield from _sources(getattr(sys.modules[recipe.__module__], called[1]))


def _papers_settings(name: str) -> list[str]:
    about, defaults, meaning = ABOUT[name], config.Settings(method=name), config.names()
    if not about["paper"]:
        return [f"None of them is a setting here. {about['differs']}"]
    pairs = [setting.split("=", 1) for setting in about["paper"]]
    rows = [
        f"| `{key}` | `{value}` | `{_word(config.value(defaults, key))}` | {meaning[key]} |" for key, value in pairs
    ]
    command = [f"diffrep train --data FOLDER --method {name} --out runs/{name}", *about["paper"]]
    unread = " These figures are from memory and were not compared with the paper." if about.get("unread") else ""
    return [
        f"Stated for {about['of']}. {about['differs']}{unread}",
        "",
        "| setting | paper | default | meaning |",
        "|---|---|---|---|",
        *rows,
        "",
        "All at once:",
        "",
        "```",
        " \\\n  --set ".join(command),
        "```",
    ]


def _word(value: object) -> str:
    """A value as it is written after --set."""
    if isinstance(value, tuple):
        return str(list(value)).replace(" ", "")
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _numbers(name: str) -> list[str]:
    rows = {data: _measured(name, data) for data in DATA}
    if not any(rows.values()):
        more = " A run of 120 s on MNIST stands in [results](../results.md#a-bound-on-mnist)." if name == "vdm" else ""
        return [f"The benchmark holds methods with a code, so this one has no row in it.{more}"]
    lines = ["| data | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    lines += [f"| {DATA[data]} | " + " | ".join(cells) + " |" for data, cells in rows.items() if cells]
    return [*lines, "", f"{BEFORE} Commands and other methods: [results](../results.md)."]


def _measured(name: str, data: str) -> list[str]:
    """A cell for each column: the mean over seeds, with its standard error where there are several."""
    runs = json.loads((HERE.parent / "results" / f"benchmark-{data}.json").read_text())["runs"]
    own = [run for run in runs if run["name"] == name]
    cells = []
    for key in COLUMNS.values() if own else ():
        values, digits = [run[key] for run in own if run[key] is not None], 0 if key == "seconds" else 3
        error = f" ± {stdev(values) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 and digits else ""
        cells.append(f"{fmean(values):.{digits}f}{error}" if values else "")
    return cells


if __name__ == "__main__":
    (HERE / "methods").mkdir(exist_ok=True)
    (HERE / "methods.md").write_text(overview())
    for method_name in METHODS:
        (HERE / "methods" / f"{method_name}.md").write_text(page(method_name))
