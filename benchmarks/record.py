"""What every file of numbers says of where it comes from: commit, machine, versions, load."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def about(seed: int | None = None, **settings: object) -> dict:
    """Settings and seed of a measurement, the commit and the machine that it ran on."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    return {
        "settings": settings,
        "seed": seed,
        "commit": commit,
        "hardware": f"{_processor()}, {os.cpu_count()} CPU cores, {os.environ.get('OMP_NUM_THREADS', 'all')} threads",
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def run_and_trees(about: str | None, rounds: int) -> tuple[argparse.Namespace, dict[str, Path]]:
    """The words of a script that measures RUN by this source tree and, where one is given, by another; the trees."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--before", type=Path, help="source folder that is measured in turn")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    return given, {"now": Path(__file__).parents[1] / "src"} | ({"before": given.before} if given.before else {})


def write(path: Path | None, facts: dict) -> None:
    """As JSON, where a path is given: the whole file or none of it."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.tmp")
        beside.write_text(json.dumps(facts, indent=1) + "\n")
        os.replace(beside, path)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
