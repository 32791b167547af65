"""By reading: a number and an error side by side are of the same thing, and a fact is not that of its neighbour."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "diffrep"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
ANOTHER = """
data/splits.py: own_split=split
evaluation/times.py: valid_accuracy=accuracy
runs/summary.py: refined_bits_per_dim=bits_per_dim
runs/summary.py: refined_bits_per_dim_se=bits_per_dim_se
runs/summary.py: refined_rate_nats=rate_nats
studies/benchmark.py: method=name
"""  # file: fact=what it is called elsewhere, where a neighbour has that name
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


def taken(text: str) -> set[str]:
    """ "fact=name" of each keyword, and each key of an object, that is given what another of them is called."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            held = {one.arg: one.value for one in node.keywords if one.arg}
        elif isinstance(node, ast.Dict):
            held = {k.value: v for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)}
        else:
            continue
        for key, value in held.items():
            while isinstance(value, ast.Call) and len(value.args) == 1 and not value.keywords:
                got = isinstance(value.func, ast.Attribute) and value.func.attr == "get"
                value = ast.Subscript(value.func.value, value.args[0]) if got else value.args[0]
            name, _ = named(value)
            written = not isinstance(value, ast.Subscript) or isinstance(value.slice, ast.Constant)
            found |= {f"{key}={name}"} if name and written and name in {*held} - {key} else set()
    return found


@pytest.mark.parametrize("file", FILES)
def test_no_fact_is_that_of_its_neighbour(file):
    known = {line.partition(": ")[2] for line in ANOTHER.splitlines() if line.startswith(f"{file}: ")}
    assert taken((PACKAGE / file).read_text()) == known


@pytest.mark.parametrize(
    "wrong", ["Side(seed=a, method=s.seed)", '{"low": x["high"], "high": 1}', "f(a=b.get('c'), c=2)"]
)
def test_a_neighbours_fact_is_seen(wrong):
    assert taken(wrong)


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
