"""A lock (`tests/locked.py`): what tiny runs of every method and every measure say."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from diffrep.data import load
from diffrep.errors import UserError
from diffrep.evaluation.bound import bound
from diffrep.measures.evaluate import codes
from every_measure import ROWS, splits
from locked import MADE, comparable, hold, of_result, seen_parts, whole
from tiny import EVERY, base, copy_of, weights

DATA = ("digits", "digits-factors")


def of_method(name: str) -> dict[str, Any]:
    """Log, weights, codes, samples, reconstruction and bound after three steps."""
    run, parts = base(name), splits()
    log = (run.directory / "metrics.jsonl").read_text().splitlines()
    facts: dict[str, Any] = {"log": [of_result(json.loads(line)) for line in log]}
    facts["weights"] = seen_parts(weights(run))
    model, x = run.model, parts.test.batch(torch.arange(8)).x
    if model.has_code:
        facts["codes"] = codes(run.model, parts.test, 0.5 if run.model.timed else None)
    made = {
        "sample": lambda: model.sample(4, steps=3),
        "reconstruct": lambda: model.reconstruct(x, steps=3),
        "reconstruct_exactly": lambda: model.reconstruct_exactly(x, steps=3),
        "bound": lambda: bound(model, parts.test, levels=2).parts,
    }
    for what, make in made.items():
        try:
            facts[what] = make()
        except UserError as mistake:  # the method has no decoder, or no bound
            facts[what] = str(mistake)
    return facts


def of_data(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    parts = load(name)
    for split in ("train", "valid", "test"):
        part = getattr(parts, split)
        rows = torch.arange(min(len(part), 64))
        facts[split] = {"examples": len(part), "x": part.batch(rows).x, "labels": part.labels, "factors": part.factors}
    return facts


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_what_a_measure_says_stays(name, tmp_path):
    row = ROWS[name]
    hold("measures", name, of_result(row.call(copy_of(base(row.method), tmp_path / "run"), splits())))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_what_a_method_learns_stays(name):
    hold("methods", name, of_method(name))


@pytest.mark.parametrize("name", DATA)
def test_what_is_inside_stays(name):
    hold("inside", name, of_data(name))


def test_no_number_is_kept_of_what_is_gone():
    whole("measures", ROWS)
    whole("methods", EVERY)
    whole("inside", DATA)


def test_numbers_are_compared_where_they_were_made():
    if not comparable():
        pytest.skip(f"the kept numbers are of another processor or other libraries ({MADE.name}): none is compared")
