"""Short trials of codes, one after another: bound, rate, what it tells apart, what is used, and probes.

python benchmarks/code_trials.py TRIALS.toml --data FOLDER --out RESULTS.json

TRIALS.toml: budget, set = [settings of all], bound_examples, probed (training codes of the probes), compared (codes in
I(x; z), whose lower estimate stays below ln of it), judged = "valid" or "test" (the split that is scored; what chooses
defaults is scored on valid), and [trials] with name = [method, setting, ...]. A trial
whose name stands in RESULTS.json with the same settings is not made again, so a stopped series goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import diffrep
from diffrep.data import Examples, Splits
from diffrep.errors import UserError
from diffrep.evaluation import bound as bounds
from diffrep.evaluation import information
from diffrep.measures.evaluate import codes
from diffrep.probes.few_labels import few_labels
from diffrep.probes.linear import linear
from diffrep.probes.neighbours import knn
from diffrep.runs.run import Run
from diffrep.shapes import mean_and_error
from diffrep.studies.study import commit, hardware
from diffrep.training import journal

USUAL = {
    "judged": "test",
    "bound_examples": 2_000,
    "probed": 8_000,
    "compared": 1_500,
}  # where TRIALS.toml says nothing
PROFILED = 300  # scored examples in a profile
AWAKE = 1.0  # nats that examples lose by each other's codes


def trial(data: str, budget: str, method: str, changes: Sequence[str], plan: Mapping) -> dict:
    """Train and measure one run; what a method does not have is None."""
    with tempfile.TemporaryDirectory() as directory:
        started = time.monotonic()
        run = diffrep.train(data, Path(directory) / "run", method, budget, changes)
        wall, lines = time.monotonic() - started, journal.read(run.directory)
        splits = run.splits()
        scored = getattr(splits, plan["judged"])
        gaps = [(line["step"], line["watch"].get("gap_nats")) for line in lines]
        found = {
            "method": method,
            "settings": list(changes),
            "budget": budget,
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "seconds": None if run.result is None else run.result.seconds,
            "examples": None if run.result is None else run.result.examples,
            "wall_seconds": wall,
            "awake_at_step": next((step for step, gap in gaps if gap is not None and gap > AWAKE), None),
        }
        found |= _bound(run, scored, plan["bound_examples"])
        if not run.model.has_code:
            return found
        return found | _code(run, splits, scored, plan["probed"], plan["compared"])


def _bound(run: Run, scored: Examples, most: int) -> dict:
    try:
        said = bounds.bound(run.model, scored.subset(scored.evenly(most)), levels=8)
    except UserError:
        return {"bits_per_dim": None}
    whole = said.summary()
    kept = {name: whole[name] for name in ("bits_per_dim", "bits_per_dim_se")}
    return kept | {"rate_nats": said.rate_nats, "active_units": said.active_units}


def _code(run: Run, splits: Splits, test: Examples, probed: int, compared: int) -> dict:
    found: dict = {}
    try:
        told = information.mutual_information(run.model, test.subset(test.evenly(compared)))
        found["information_nats"] = [mean_and_error(told.lower)[0], mean_and_error(told.upper)[0]]
    except UserError:
        found["information_nats"] = None
    try:
        found["used_nats"] = information.profile(run.model, test.subset(test.evenly(PROFILED)), levels=16).integral()[0]
    except UserError:
        found["used_nats"] = None
    parts = (splits.train.subset(splits.train.evenly(probed)), splits.valid, test)
    train, valid, tested = (
        (codes(run.model, part, 0.5 if run.model.timed else None), part.require_labels().cpu().numpy())
        for part in parts
    )
    found["linear"], found["knn"] = (probe(train, valid, tested)["accuracy"] for probe in (linear, knn))
    found["few_10"] = few_labels(train, tested, 10)["accuracy"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    plan = USUAL | tomllib.loads(arguments.trials.read_text())
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"trials": {}}
    scored = {"data": Path(arguments.data).name, **{name: plan[name] for name in USUAL}}
    if was_scored := {name: known[name] for name in scored if known.get(name, scored[name]) != scored[name]}:
        parser.error(
            f"{arguments.out} was scored with {was_scored}, and {arguments.trials} asks for another: take a new file."
        )
    for name, (method, *own) in plan["trials"].items():
        changes = [*plan.get("set", []), *own]
        was = known["trials"].get(name)
        if was is not None and (was["method"], was["settings"], was["budget"]) == (method, changes, plan["budget"]):
            continue
        found = trial(arguments.data, plan["budget"], method, changes, plan)
        known["trials"][name] = found | {"commit": commit()}
        about = {"about": plan.get("about", ""), **scored, "hardware": hardware()}
        arguments.out.write_text(json.dumps(about | {"trials": known["trials"]}, indent=2) + "\n")
        print(name, {key: value for key, value in found.items() if key not in ("settings", "budget")}, flush=True)


if __name__ == "__main__":
    main()
