"""Two models on the same test examples: python benchmarks/paired_bounds.py CODE OTHER [CODE OTHER ...] [--out FILE]

The difference of their bounds, and its standard error over the test examples: both models are scored on the same ones,
so what makes an example hard for both cancels. For a model with a random code also I(x; z), from below and above.
"""

import argparse
from pathlib import Path

from record import about, write

from diffrep import runs
from diffrep.errors import UserError
from diffrep.evaluation.bound import Bound, bound
from diffrep.evaluation.information import mutual_information
from diffrep.runs.run import Run
from diffrep.shapes import bits_per_dim, mean_and_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--levels", type=int, default=4, help="noise levels for each example")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    if len(asked.runs) % 2:
        parser.error(f"expected runs in pairs, got {len(asked.runs)}")
    facts = about(levels=asked.levels, runs=[place.name for place in asked.runs])
    rows: list[dict] = []
    for first, second in zip(asked.runs[::2], asked.runs[1::2], strict=True):
        both = [runs.load(place) for place in (first, second)]
        bounds = [_bound(run, asked.levels) for run in both]
        mean, error = (
            float(bits_per_dim(x, bounds[0].shape)) for x in mean_and_error(bounds[0].total - bounds[1].total)
        )
        row = {"runs": [first.name, second.name], "bits_per_dim": [b.summary()["bits_per_dim"] for b in bounds]}
        row |= {"difference": mean, "difference_se": error, "rate_nats": [b.rate_nats for b in bounds]}
        row |= {"information_nats": [_information(run) for run in both], "examples": len(bounds[0].total)}
        print(row, flush=True)
        rows.append(row)
        write(asked.out, {"about": "bounds of two models on the same test examples, in pairs", **facts, "pairs": rows})


def _bound(run: Run, levels: int) -> Bound:
    return bound(run.model, run.splits().test, levels=levels)


def _information(run: Run) -> list[float] | None:
    """I(x; z) from below and from above, nats; None without a random code."""
    try:
        told = mutual_information(run.model, run.splits().test)
    except UserError:
        return None
    return [float(told.lower.mean()), float(told.upper.mean())]


if __name__ == "__main__":
    main()
