"""How long the explorer takes to answer: python benchmarks/explorer.py [--out results/explorer.json]

A run on 28x28 pictures of noise (the content of a picture has no influence on the time), the default `vae-vdm`, trained
for two steps. Each answer of each tab seven times, without the first, which loads what all later ones share: median and
most of wall seconds, and median of CPU seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import record

import diffrep
from diffrep.pages.explorer import Explorer

ROUNDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", np.random.default_rng(0).integers(0, 256, (1000, 28, 28), dtype=np.uint8))
        diffrep.train(f"{folder}/x.npy", f"{folder}/run", method="vae-vdm", budget="128ex")
        tabs = timed(Explorer.of(f"{folder}/run"))
    record.write(given.out, {**record.about(0, rounds=ROUNDS, shape=[28, 28]), "seconds": tabs})


def timed(explorer: Explorer) -> dict[str, dict[str, float]]:
    """Tab -> seconds of its answer: median and most of the wall, median of the CPU."""
    a, b = explorer.example(0), explorer.example(1)
    answers = {
        "Code": lambda: explorer.inspect(a),
        "Noise": lambda: explorer.at_noise(a, 0.0),
        "Between two": lambda: explorer.between(a, b),
        "Walk": lambda: explorer.walk(a, explorer.direction("principal direction", "0"), 3.0),
        "New examples": lambda: explorer.samples(0),
        "Map": lambda: explorer.map(0),
    }
    tabs = {}
    for tab, answer in answers.items():
        answer()
        walls, cpus = [], []
        for _ in range(ROUNDS):
            wall, cpu = time.perf_counter(), time.process_time()
            answer()
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        tabs[tab] = {"wall": round(median(walls), 3), "most": round(max(walls), 3), "cpu": round(median(cpus), 3)}
        print(tab, tabs[tab])
    return tabs


if __name__ == "__main__":
    main()
