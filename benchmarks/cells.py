"""Codes of blood cells beside PCA at equal size: nearest neighbours and clusters against the types of cells.

python benchmarks/cells.py COUNTS.npz --out results/cells.json

COUNTS.npz: counts and bulk_labels (pbmc68k, 700 cells of 765 genes). Codes are learned from four fifths of the cells
without their types, PCA from the same cells, standardised in the same way; all cells are then encoded. kNN: the vote of
15 neighbours in 5 stratified folds. ARI: k-means with as many clusters as there are types.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import diffrep
from diffrep import data
from diffrep.shapes import mean_and_error
from diffrep.studies.study import commit, hardware

NEIGHBOURS, FOLDS = 15, 5
METHODS = {
    "vae-vdm": ("vae-vdm", ()),
    "ae": ("ae", ()),
    "drl": ("drl", ()),
    "soda, one half of a cell from the other": ("soda", ()),
    "soda, noise and dropped numbers": ("soda", ("views.thin=0.0",)),
}


def scores(codes: np.ndarray, types: np.ndarray, seed: int) -> dict[str, float]:
    """kNN accuracy and ARI of codes (N, d)."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    knn = cross_val_score(KNeighborsClassifier(NEIGHBOURS), codes, types, cv=folds).mean()
    found = KMeans(len(np.unique(types)), n_init=10, random_state=seed).fit_predict(codes)
    return {"knn": float(knn), "ari": float(adjusted_rand_score(types, found))}


def trial(source: Path, method: str, changes: tuple[str, ...], dim: int, budget: str, seed: int) -> tuple[dict, dict]:
    """The scores of a method, and of PCA on the same split."""
    how = ("data.valid=0.1", "data.test=0.1", f"seed={seed}", f"code.dim={dim}", *changes)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = diffrep.train(str(source), Path(folder) / "run", method, budget, how)
        every = data.whole(str(source), reading=run.card.how())
        x = every.batch(torch.arange(len(every))).x
        rows = run.splits().train.rows
        codes = run.model.encode(x).mean.numpy()
    types = every.require_labels().numpy()
    pca = PCA(dim, random_state=seed).fit(x[rows].numpy())
    return scores(codes, types, seed), scores(pca.transform(x.numpy()), types, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dim", type=int, default=10)
    parser.add_argument("--budget", default="20000ex")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict]] = {"PCA": []}
    for name, (method, changes) in METHODS.items():
        found[name] = []
        for seed in range(asked.seeds):
            own, pca = trial(asked.counts, method, changes, asked.dim, asked.budget, seed)
            found[name].append(own)
            if len(found["PCA"]) < asked.seeds:
                found["PCA"].append(pca)
            print(name, seed, own, pca, flush=True)
    table = {
        name: {score: mean_and_error([one[score] for one in rows]) for score in ("knn", "ari")}
        for name, rows in found.items()
    }
    facts = {
        "protocol": f"kNN of {NEIGHBOURS} in {FOLDS} folds; ARI of k-means; mean and standard error over seeds",
        "dim": asked.dim,
        "budget": asked.budget,
        "seeds": asked.seeds,
        "commit": commit(),
        "hardware": hardware(),
        "table": table,
        "runs": found,
    }
    asked.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
