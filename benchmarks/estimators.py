"""What the estimators cost: python benchmarks/estimators.py [--out results/estimators.json]

CPU seconds of an import, each in a process of its own, and of `DiffusionEncoder.score_samples` for each row, of many
rows and of one row alone: pictures of 8x8 pixels and a table of 30 columns. Medians. Run it with OMP_NUM_THREADS=1.
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

import numpy as np
import record

SOURCE = Path(__file__).parents[1] / "src"
IMPORTS = ("import diffrep", "import torch", "from diffrep import DiffusionEncoder")
ROWS = 256  # of a call with many


def importing(line: str) -> float:
    """CPU seconds of a process that does this alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", line], env={**os.environ, "PYTHONPATH": str(SOURCE)}, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def scoring(encoder, x: np.ndarray, rounds: int) -> float:
    """CPU milliseconds of a row."""
    took = []
    for _ in range(rounds):
        began = time.process_time()
        encoder.score_samples(x)
        took.append(time.process_time() - began)
    return 1000 * median(took) / len(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    imports = {line: round(median(importing(line) for _ in range(given.rounds)), 2) for line in IMPORTS}
    print(imports, flush=True)

    sys.path.insert(0, str(SOURCE))
    from sklearn.datasets import load_breast_cancer, load_digits

    from diffrep import DiffusionEncoder

    sets = {"digits, 8x8 pictures": load_digits().images, "breast cancer, 30 columns": load_breast_cancer().data}
    scores = {}
    for name, x in sets.items():
        encoder = DiffusionEncoder(method="vae-vdm", budget="256ex", random_state=0, verbose=0).fit(x)
        scoring(encoder, x[:1], 1)
        scores[name] = {
            "many": round(scoring(encoder, x[:ROWS], given.rounds), 2),
            "one": round(scoring(encoder, x[:1], 5 * given.rounds), 2),
        }
        print(name, scores[name], flush=True)
    facts = {"import_cpu_seconds": imports, "score_cpu_milliseconds_a_row": scores}
    record.write(given.out, {**record.about(seed=0, rounds=given.rounds, rows=ROWS, method="vae-vdm"), **facts})


if __name__ == "__main__":
    main()
