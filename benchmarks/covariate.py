"""What a covariate for the decoder changes: python benchmarks/covariate.py COUNTS.npz --out results/covariate.json

Half of the cells, drawn by lot, are made a second batch: each gene keeps a share of its counts there, the same for all
these cells. Two runs, with and without `data.covariate`: how often the neighbours of a cell tell its batch and type, by
the genes (before) and by the code (after), and the bound on the same test cells.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import record
import torch

import diffrep
from diffrep.measures.probe import Probing, probe

KINDS = {"batch": "batch", "type": None}  # what is told -> the labels of the probe


def two_batches(counts: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts (N, F) with a second batch among them, and the batch of each cell."""
    rng = np.random.default_rng(seed)
    batch, kept = rng.integers(0, 2, len(counts)), np.exp(-np.abs(rng.normal(size=counts.shape[1])))
    return np.where(batch[:, None] == 1, rng.binomial(counts.astype(int), kept), counts), batch


def measured(run: diffrep.Run) -> dict:
    found: dict = {"bound": dict(diffrep.bound(run.model, run.splits().test).summary())}
    for told, labels in KINDS.items():
        scores = probe(run, asked=Probing(labels, ("knn",)))["scores"]
        found[told] = {kind: [row["knn"]["accuracy"], row["knn"]["se"]] for kind, row in scores.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--budget", default="8000ex")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    held, runs = np.load(given.counts), {}
    with tempfile.TemporaryDirectory() as folder:
        counts, batch = two_batches(held["counts"], seed=0)
        np.savez(f"{folder}/cells.npz", counts=counts, label=held["bulk_labels"], batch=batch)
        for name, change in (("without", ()), ("with", ("data.covariate=batch",))):
            run = diffrep.train(
                f"{folder}/cells.npz", f"{folder}/{name}", "vae-vdm", given.budget, ("code.dim=10", *change)
            )
            runs[name] = measured(run)
            print(name, runs[name], flush=True)
    record.write(given.out, {**record.about(seed=0, budget=given.budget, method="vae-vdm", dim=10), "runs": runs})


if __name__ == "__main__":
    main()
