"""A lock, not an oracle: what tiny runs say today is what `numbers.json` says, so no number changes without being seen.

Whoever changes a number on purpose gives its protocol a new name, or says in CHANGELOG.md why runs differ, and writes
the file anew with `make numbers`. Whether a number is right, the oracles say; many small mistakes move a number that no
oracle looks at.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffrep.data import load
from diffrep.errors import UserError
from diffrep.evaluation.bound import bound
from diffrep.measures.evaluate import codes
from every_measure import ROWS, leaves, splits
from tiny import EVERY, base, copy_of, weights

FILE = Path(__file__).with_name("numbers.json")
DATA = ("digits", "digits-factors")
WRITE = os.environ.get("DIFFREP_NUMBERS") == "write"
NO_NUMBERS = re.compile("second|(?<!over_)time|key|checksum|fingerprint|weights|data|pixels/knn|/dci/", re.IGNORECASE)
# the last two: equally far neighbours, and trees, which other versions of scikit-learn order in another way
KEPT: dict[str, dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else {}


def seen(x: Tensor) -> list[float]:
    """Two weighted sums of a tensor, which the value and the place of each of its numbers move."""
    flat = x.detach().double().cpu().flatten()
    places = torch.arange(len(flat), dtype=torch.float64)
    return [float((flat * (places * k).cos()).sum() / max(len(flat), 1) ** 0.5) for k in (0.37, 1.91)]


def of_result(facts: Any) -> dict[str, Any]:
    """What a result says, but for times and for names of files and of weights."""
    return {
        place: value
        for place, value in leaves(facts)
        if isinstance(value, int | float | str | None) and not NO_NUMBERS.search(place)
    }


def of_method(name: str) -> dict[str, Any]:
    """Log, weights, codes, samples, reconstruction and bound after three steps."""
    run, parts = base(name), splits()
    facts: dict[str, Any] = {}
    for number, line in enumerate((run.directory / "metrics.jsonl").read_text().splitlines()):
        facts |= {f"log/{number}{place}": value for place, value in of_result(json.loads(line)).items()}
    for place, tensor in weights(run).items():
        part = f"weights/{place.partition('.')[0]}"
        facts[part] = facts.get(part, 0.0) + sum(seen(tensor))
    model, x = run.model, parts.test.batch(torch.arange(8)).x
    if model.has_code:
        facts["codes"] = seen(torch.as_tensor(codes(run.model, parts.test, 0.5 if run.model.timed else None)))
    made = {
        "sample": lambda: model.sample(4, steps=3),
        "reconstruct": lambda: model.reconstruct(x, steps=3),
        "reconstruct_exactly": lambda: model.reconstruct_exactly(x, steps=3),
        "bound": lambda: torch.stack([*bound(model, parts.test, levels=2).parts.values()]),
    }
    for what, make in made.items():
        try:
            facts[what] = seen(make())
        except UserError:  # the method has no decoder, or no bound
            facts[what] = None
    return dict(leaves(facts))


def of_data(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    parts = load(name)
    for split in ("train", "valid", "test"):
        part = getattr(parts, split)
        rows = torch.arange(min(len(part), 64))
        facts[split] = {"examples": len(part), "x": seen(part.batch(rows).x)}
        if part.labels is not None:
            facts[split]["labels"] = seen(part.labels)
        facts[split] |= {f"factors/{key}": seen(torch.as_tensor(value)) for key, value in part.factors.items()}
    return dict(leaves(facts))


def hold(group: str, facts: dict[str, Any]) -> None:
    """Each number is the one that is kept, to rounding; with DIFFREP_NUMBERS=write it is kept from now on."""
    assert facts, group
    if WRITE:
        KEPT[group] = facts
        FILE.write_text(json.dumps(dict(sorted(KEPT.items())), indent=0, sort_keys=True) + "\n")
        return
    kept = KEPT.get(group)
    assert kept is not None, f"{group} is new: make numbers"
    moved = {place: (kept.get(place), facts.get(place)) for place in kept.keys() | facts.keys()}
    moved = {place: pair for place, pair in moved.items() if not alike(place, *pair)}
    assert not moved, f"{group}: other numbers than those that are kept (kept, now): {dict(sorted(moved.items())[:12])}"


def alike(place: str, one: Any, two: Any) -> bool:
    """To rounding; weights to ten times that, since a step has the same length whatever small gradient it follows."""
    if isinstance(one, float | int) and isinstance(two, float | int) and not isinstance(one, bool):
        loose = 10 if place.startswith("/weights") else 1
        near = math.isclose(one, two, rel_tol=2e-3 * loose, abs_tol=2e-4 * loose)
        return near or (math.isnan(one) and math.isnan(two))
    return one == two


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_what_a_measure_says_stays(name, tmp_path):
    row = ROWS[name]
    hold(f"measure {name}", of_result(row.call(copy_of(base(row.method), tmp_path / "run"), splits())))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_what_a_method_learns_stays(name):
    hold(f"method {name}", of_method(name))


@pytest.mark.parametrize("name", DATA)
def test_what_is_read_stays(name):
    hold(f"data {name}", of_data(name))


def test_no_number_is_kept_of_what_is_gone():
    groups = {f"measure {name}" for name in ROWS} | {f"method {name}" for name in EVERY}
    assert groups | {f"data {name}" for name in DATA} == KEPT.keys()
