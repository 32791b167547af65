"""How long a small command takes: python benchmarks/start.py [--before OTHER/src] [--out results/start.json]

Each command in a process of its own, five times, in turn with the same command of another source tree where one is
given; medians of wall and of CPU seconds, and which of the large libraries were imported.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import record

COMMANDS = ("--help", "methods", "settings", "mistyped", "train --help")
LARGE = ("torch", "sklearn", "scipy", "matplotlib", "pyarrow", "numpy", "accelerate", "datasets")
LOOK = f"import sys; from diffrep import cli\ntry: cli.main()\nfinally: print([n for n in {LARGE} if n in sys.modules])"


def seconds(source: Path, words: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one command."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(source, ["-m", "diffrep", *words])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def large(source: Path, words: list[str]) -> list[str]:
    return eval(_run(source, ["-c", LOOK, *words]).stdout.splitlines()[-1])


def _run(source: Path, words: list[str]) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(source)}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="source folder that is measured in turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    trees = {"now": Path(__file__).parents[1] / "src"} | ({"before": given.before} if given.before else {})
    rows: dict[str, dict] = {}
    for command in COMMANDS:
        words = command.split()
        times: dict[str, list] = {name: [] for name in trees}
        for _ in range(given.rounds):
            for name, tree in trees.items():
                times[name].append(seconds(tree, words))
        rows[command] = {
            name: {
                "wall_seconds": round(median(wall for wall, _ in times[name]), 3),
                "cpu_seconds": round(median(cpu for _, cpu in times[name]), 3),
                "large_modules": large(tree, words),
            }
            for name, tree in trees.items()
        }
        said = "; ".join(
            f"{name} {row['wall_seconds']} s {row['large_modules']}" for name, row in rows[command].items()
        )
        print(f"{command}: {said}")
    record.write(given.out, {**record.about(rounds=given.rounds), "commands": rows})


if __name__ == "__main__":
    main()
