"""What every file of numbers says of where it comes from: commit, machine, versions, load."""

from __future__ import annotations

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
