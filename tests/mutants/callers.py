"""A plugin of pytest that writes down which functions of diffrep each test calls, a line for each test."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from cProfile import Profile
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

CALLERS = Path(__file__).parents[2] / "build" / "mutants" / "callers.jsonl"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: Any) -> Iterator[None]:
    """Fixtures that are made for a test count as its calls; those of a process that it starts do not."""
    watch = Profile(builtins=False)
    watch.enable()
    yield
    watch.disable()
    codes = [entry.code for entry in watch.getstats() if isinstance(entry.code, CodeType)]
    called = sorted({place for code in codes if (place := place_of(code.co_filename, code.co_qualname))})
    with open(os.environ.get("CALLERS", CALLERS), "a") as lines:
        lines.write(json.dumps([item.nodeid, called]) + "\n")


def place_of(path: str, function: str) -> str | None:
    """ "probes/linear.py: fit"; None of a function of others."""
    _, below, file = path.rpartition("/src/diffrep/")
    return f"{file}: {function}" if below else None


def read(path: Path = CALLERS) -> dict[str, set[str]]:
    """Function -> the tests that call it, of the last record of each test; empty without a record."""
    of_test = dict(map(json.loads, path.read_text().splitlines())) if path.exists() else {}
    tests: dict[str, set[str]] = defaultdict(set)
    for test, called in of_test.items():
        for place in called:
            tests[place].add(test)
    return tests
