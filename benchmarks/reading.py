"""Time and memory of reading: python benchmarks/reading.py DATA ... [--against OTHER/src] [--out results/reading.json]

Each data set is read (`diffrep.data.load`, and one batch of 500 of the training split) in a process of its own, seven
times, in turn with the same of another source tree where one is given: the least CPU seconds (imports before reading
do not count) and the highest resident memory, and the ratios of this tree to the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import record

TIMES = 7
READ = """
import json, resource, sys, time
import torch
from diffrep import data
from sklearn.datasets import load_digits  # what readers import lazily is not what is measured
data.load("digits")
began = time.process_time()
splits = data.load(sys.argv[1])
read = time.process_time() - began
splits.train.batch(torch.arange(min(500, len(splits.train))))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": read, "mebibytes": peak, "examples": len(splits.train)}))
"""


def measured(source: Path, data: str) -> dict:
    """CPU seconds, peak MiB and training examples of one reading."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, "-c", READ, data], env=environment, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"{source} does not read {data}: {process.stderr.strip().splitlines()[-1]}")
    return json.loads(process.stdout.splitlines()[-1])


def best(readings: list[dict]) -> dict:
    """The least seconds and the least peak of several readings: what others did on the machine only adds."""
    return {name: min(reading[name] for reading in readings) for name in ("seconds", "mebibytes", "examples")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", help="folders or files")
    parser.add_argument("--against", type=Path, help="src of another tree")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    trees = {"here": Path(__file__).parents[1] / "src", **({"against": args.against} if args.against else {})}
    rows = []
    for data in args.data:
        readings: dict[str, list[dict]] = {name: [] for name in trees}
        for _ in range(TIMES):
            for name, source in trees.items():
                readings[name].append(measured(source, data))
        row: dict = {"data": Path(data).name, **{name: best(several) for name, several in readings.items()}}
        if args.against:
            row["ratio"] = {
                name: round(row["here"][name] / row["against"][name], 3) for name in ("seconds", "mebibytes")
            }
        rows.append(row)
        print(json.dumps(row), flush=True)
    record.write(args.out, {**record.about(times=TIMES), "rows": rows})


if __name__ == "__main__":
    main()
