"""By reading: where a number and a standard error stand side by side, they are of the same thing."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "diffrep"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
ELSEWHERE = {"(value, result['se'])"}  # of a loop over results: the value is the key of its tuple


def named(node: ast.expr) -> tuple[str, str]:
    """What a value is called, and of what: ("upper_se", "bounds") of bounds["upper_se"]; ("", "") of a computation."""
    if isinstance(node, ast.BoolOp):
        node = node.values[0]
    if isinstance(node, ast.Attribute):
        return node.attr, ast.unparse(node.value)
    if isinstance(node, ast.Subscript):
        name = node.slice.value if isinstance(node.slice, ast.Constant) else ast.unparse(node.slice)
        return str(name).removeprefix("f").strip("\"'").replace("{", "").replace("}", ""), ast.unparse(node.value)
    return (node.id, "") if isinstance(node, ast.Name) else ("", "")


def apart(value: ast.expr, error: ast.expr) -> bool:
    """Is `error` called an error of something else than `value`? "rate_se" belongs to "rate" or "rate_nats"."""
    (name, of), (called, owner) = named(value), named(error)
    if called == "se":
        return of != owner
    stem = called.removesuffix("_se")
    return stem != called and (of != owner or stem not in (name, name.rpartition("_")[0]))


def names(node: ast.expr) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def strangers(text: str) -> list[str]:
    """Neighbours in calls and tuples, and "x" and "x_se" of one object, that are not of the same thing."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call | ast.Tuple):
            items = node.args if isinstance(node, ast.Call) else node.elts
            found += [f"({ast.unparse(a)}, {ast.unparse(b)})" for a, b in pairwise(items) if apart(a, b)]
        elif isinstance(node, ast.Dict):
            held = {k.value: v for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)}
            for key, error in held.items():
                stem = key.removesuffix("_se") if isinstance(key, str) else key
                value = held.get(stem, held.get(f"{stem}_nats"))
                if stem == key or value is None or names(value) & names(error):
                    continue
                words = {"error", "whole_error", *(f"{name}_error" for name in names(value))}
                if names(error) - words:
                    found.append(f"{key}: {ast.unparse(error)}")
    return found


@pytest.mark.parametrize("file", FILES)
def test_an_error_stands_beside_its_number(file):
    assert {*strangers((PACKAGE / file).read_text())} <= ELSEWHERE


@pytest.mark.parametrize(
    "wrong",
    [
        'show(b["upper"], b["lower_se"])',
        '(a["upper"], b["upper_se"])',
        '{name: (p[name], p["linear_se"])}',
        'show(one["accuracy"], other["se"])',
        '{"linear": a["accuracy"], "linear_se": b["se"]}',
        '{"low": low, "low_se": high_error}',
    ],
)
def test_another_ones_error_is_seen(wrong):
    assert strangers(wrong)


@pytest.mark.parametrize(
    "right",
    ['show(b["upper"], b["upper_se"])', "(n.rate_nats, n.rate_se)", '{"low": low, "low_se": low_error}', "f(a, b)"],
)
def test_its_own_is_not(right):
    assert not strangers(right)
