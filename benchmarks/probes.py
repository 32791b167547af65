"""How long the probes of a run take: python benchmarks/probes.py RUN [--before OTHER/src] [--out results/probes.json]

`diffrep probe RUN --protocols linear,knn --few 1,10` in a process of its own, in turn with the same command of another
source tree where one is given: the first run on its data, and the next one, which finds the scores of the references.
Wall and CPU seconds, and every score of both trees.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record

WORDS = ("--protocols", "linear,knn", "--few", "1,10", "--json")


def probed(source: Path, run: Path, cache: Path) -> tuple[dict, dict]:
    """Seconds, and scores: features -> protocol -> (accuracy, error)."""
    shutil.rmtree(run / "features", ignore_errors=True)
    (run / "probes.json").unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(source), "DIFFREP_CACHE": str(cache)}
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "diffrep", "probe", str(run), *WORDS]
    said = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = {"wall_seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(cpu, 1)}
    scores = {
        kind: {name: [round(one["accuracy"], 4), round(one["se"], 4)] for name, one in results.items()}
        for kind, results in said["scores"].items()
    }
    return seconds, scores


def main() -> None:
    given, trees = record.run_and_trees(__doc__, rounds=1)
    seconds: dict[str, dict[str, list]] = {name: {"first": [], "next": []} for name in trees}
    scores: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(given.rounds):
            for name, tree in trees.items():
                run, cache = Path(folder) / f"{name}-{turn}", Path(folder) / f"cache-{name}-{turn}"
                shutil.copytree(given.run, run)
                for which in ("first", "next"):
                    spent, scores[name] = probed(tree, run, cache)
                    seconds[name][which].append(spent)
                    print(f"{name}, {which} run on its data: {spent}", flush=True)
    about = record.about(rounds=given.rounds, method=json.loads((given.run / "config.json").read_text())["method"])
    record.write(given.out, {**about, "seconds": seconds, "scores": scores})


if __name__ == "__main__":
    main()
