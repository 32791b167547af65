"""What threads lose that wait for each other: python benchmarks/threads.py RUN [--before OTHER/src] [--out FILE]

Codes of 4,000 and the bound of 1,000 validation examples at 2 noise levels, with as many threads as torch takes: alone,
and while another program holds one core. Source trees in turn, each in a process of its own; wall and CPU seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import record

ONE = """
import json, sys, time
import diffrep
from diffrep.evaluation.bound import bound
from diffrep.measures.evaluate import codes
from diffrep.training.memory import keep_memory
keep_memory()  # as every command
run = diffrep.load(sys.argv[1])
valid = run.splits().valid
few, many = (valid.subset(valid.evenly(n)) for n in (1000, 4000))
for name, work in (("codes", lambda: codes(run.model, many)), ("bound", lambda: bound(run.model, few, levels=2))):
    wall, cpu = time.monotonic(), time.process_time()
    work()
    print(json.dumps([name, round(time.monotonic() - wall, 1), round(time.process_time() - cpu, 1)]), flush=True)
"""
BUSY = "import os\nos.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\nwhile True: pass"  # holds the last core


def seconds(source: Path, run: Path) -> dict[str, dict[str, float]]:
    """What is measured -> seconds."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    said = subprocess.run(
        [sys.executable, "-c", ONE, str(run)], env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    lines = map(json.loads, said.stdout.splitlines())
    return {name: {"wall_seconds": wall, "cpu_seconds": cpu} for name, wall, cpu in lines}


def main() -> None:
    given, trees = record.run_and_trees(__doc__, rounds=2)
    measured: dict[str, dict[str, list]] = {how: {name: [] for name in trees} for how in ("alone", "beside another")}
    for how, of_trees in measured.items():
        other = subprocess.Popen([sys.executable, "-c", BUSY]) if how != "alone" else None
        try:
            for _ in range(given.rounds):
                for name, tree in trees.items():
                    of_trees[name].append(seconds(tree, given.run))
                    print(f"{how}, {name}: {of_trees[name][-1]}", flush=True)
        finally:
            if other is not None:
                other.kill()
    record.write(given.out, {**record.about(rounds=given.rounds), "seconds": measured})


if __name__ == "__main__":
    main()
