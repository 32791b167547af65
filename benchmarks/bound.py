"""What the bound costs and how far it is off, before and now: python benchmarks/bound.py RUN [-n 400] [--out FILE]

On so many evenly spread test examples: bound-1, eight uniform noise levels for each example, and the protocol of now,
levels and control variates by a pilot; in turn, twice, CPU seconds. For the whole test split seconds grow with its
size, but those of the pilot, which are the same for any split, and errors shrink with the root of it. The error of
Monte Carlo of bound-1 is measured by its own repetition.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import record
import torch

from diffrep import runs
from diffrep.data import Examples
from diffrep.data.batches import batches
from diffrep.evaluation.bound import PROTOCOL, bound
from diffrep.evaluation.pilot import pilot
from diffrep.models.base import Model
from diffrep.shapes import bits_per_dim

LEVELS = 8


@torch.no_grad()
def plainly(model: Model, examples: Examples, seed: int) -> torch.Tensor:
    """(N,) nats of each example by bound-1."""
    chunks = batches(examples, 250, seed, torch.device("cpu"))
    return torch.cat([torch.stack([*model.bound(chunk, LEVELS).values()]).sum(0) for chunk in chunks]).double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=int, default=400)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    run = runs.load(given.run, "cpu")
    test = run.splits().test
    part = test.subset(test.evenly(given.n))
    seconds: dict[str, list[float]] = {"bound-1": [], PROTOCOL: [], "pilot": []}
    before, now = [], []
    plainly(run.model.eval(), part.subset(part.evenly(2)), 0)  # makes the tables of the preconditioner
    for seed in (0, 1):
        clock = time.process_time()
        before.append(plainly(run.model.eval(), part, seed))
        seconds["bound-1"].append(time.process_time() - clock)
        clock = time.process_time()
        now.append(bound(run.model, part, seed=seed))
        seconds[PROTOCOL].append(time.process_time() - clock)
        clock = time.process_time()
        pilot(run.model.eval(), part, torch.device("cpu"), seed)
        seconds["pilot"].append(time.process_time() - clock)

    def bits(nats: float) -> float:
        return float(bits_per_dim(nats, test.shape))

    n, whole = len(part), len(test)
    chance = float((before[0] - before[1]).square().mean() / 2)  # of one example, nats^2
    spread = float((before[0] - before[0].mean()).mul(before[1] - before[1].mean()).mean())
    summaries = [b.summary() for b in now]
    shrink = math.sqrt(n / whole)
    rows = {
        "bound-1": {
            "bits_per_dim": [bits(float(b.mean())) for b in before],
            "monte_carlo_se": bits(math.sqrt(chance / whole)),
            "sample_se": bits(math.sqrt(spread / whole)),
            "levels": LEVELS,
        },
        PROTOCOL: {
            "bits_per_dim": [s["bits_per_dim"] for s in summaries],
            "monte_carlo_se": shrink * sum(s["monte_carlo_se"] for s in summaries) / 2,
            "sample_se": shrink * sum(s["sample_se"] for s in summaries) / 2,
            "levels": [b.levels for b in now],
        },
    }
    for name, row in rows.items():
        row["total_se"] = math.hypot(row["monte_carlo_se"], row["sample_se"])
        row["cpu_seconds"] = seconds[name]
        print(name, row)
    of_pilot = sum(seconds["pilot"])
    whole_before = sum(seconds["bound-1"]) * whole / n
    whole_now = of_pilot + (sum(seconds[PROTOCOL]) - of_pilot) * whole / n
    ratio = whole_before / whole_now
    equal = ratio * (rows["bound-1"]["monte_carlo_se"] / rows[PROTOCOL]["monte_carlo_se"]) ** 2
    print(f"{equal:.1f} times as fast at equal error of Monte Carlo")
    print(f"{ratio:.1f} times as fast on {whole:,} examples, by the seconds of {n:,} and of the pilot: {seconds}")
    about = record.about(seed=0, examples=n, errors_are_for=whole, method=run.settings.method, run=str(given.run.name))
    record.write(
        given.out,
        {
            **about,
            "protocols": rows,
            "pilot_cpu_seconds": seconds["pilot"],
            "times_as_fast": ratio,
            "at_equal_error": equal,
        },
    )


if __name__ == "__main__":
    main()
