"""What one encoder for all examples loses on those it has seen and on others: python benchmarks/amortisation.py RUN ...

Nats that refining q(z | x) of single examples gains (`diffrep evaluate --refine`), on test examples and on as many of
training: what is more on the former, the encoder has learned of its training data and not of all data.
"""

import argparse
import json
from pathlib import Path

from diffrep import runs
from diffrep.evaluation.refine import PROTOCOL, refined
from diffrep.studies.study import commit, hardware


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--levels", type=int, default=16, help="noise levels for each example in the bound")
    parser.add_argument("--most", type=int, default=500, help="examples of each split")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = []
    for place in asked.runs:
        run = runs.load(place)
        splits = run.splits()
        count = min(asked.most, len(splits.test))
        row: dict = {"run": place.name, "method": run.settings.method, "seed": run.settings.seed, "examples": count}
        for part in (splits.train, splits.test):
            found = refined(run.model, part.subset(part.evenly(count)), asked.steps, asked.levels)
            gap, error = found.gap()
            row[part.split] = {
                "gap_nats": gap,
                "gap_nats_se": error,
                "rate_nats": found.encoded.rate_nats,
                "refined_rate_nats": found.refined.rate_nats,
                "bits_per_dim": found.encoded.summary()["bits_per_dim"],
                "refined_bits_per_dim": found.refined.summary()["bits_per_dim"],
            }
            print(f"{place.name}, {part.split}: {gap:.3f} +- {error:.3f} nats gained on {count} examples")
        rows.append(row)
    facts = {"steps": asked.steps, "levels": asked.levels, "protocol": PROTOCOL, "commit": commit()}
    if asked.out:
        asked.out.write_text(json.dumps({**facts, "hardware": hardware(), "runs": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
