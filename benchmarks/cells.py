"""Codes of blood cells beside PCA at equal size: nearest neighbours and clusters against the types of cells.

python benchmarks/cells.py COUNTS.npz --out results/cells.json

COUNTS.npz: counts and bulk_labels (pbmc68k, 700 cells of 765 genes). Codes are learned from four fifths of the cells
without their types, PCA from the same cells, standardised in the same way; all cells are then encoded. kNN: the vote of
15 neighbours in 5 stratified folds. ARI: k-means with as many clusters as there are types.

--scvi measures scVI (Lopez et al. 2018) in their place, from the same cells, with the defaults of scvi-tools. It needs
that package, which asks for older versions of others than diffrep is tested with: give it an environment of its own.
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
    clusters = KMeans(len(np.unique(types)), n_init=10, random_state=seed).fit_predict(codes)
    return {"knn": float(knn), "ari": float(adjusted_rand_score(types, clusters))}


def scvi_codes(counts: np.ndarray, rows: np.ndarray, dim: int, seed: int) -> np.ndarray:
    """(N, dim) means of scVI for all cells, trained on the cells `rows`."""
    import anndata
    import scvi

    scvi.settings.seed = seed
    some, every = (anndata.AnnData(part.astype(np.float32)) for part in (counts[rows], counts))
    scvi.model.SCVI.setup_anndata(some)
    model = scvi.model.SCVI(some, n_latent=dim)
    model.train(accelerator="cpu", devices=1, enable_progress_bar=False)
    return model.get_latent_representation(every)


def trial_of_scvi(source: Path, dim: int, seed: int) -> tuple[dict, dict]:
    """The scores of scVI, and of PCA, on the split that `trial` has."""
    splits = data.load(str(source), valid=0.1, test=0.1, seed=seed)
    every = data.whole(str(source), reading=splits.train.reading.for_other())
    x, rows = every.batch(torch.arange(len(every))).x.numpy(), splits.train.rows
    types, pca = every.require_labels().numpy(), PCA(dim, random_state=seed).fit(x[rows])
    codes = scvi_codes(np.load(source)["counts"], rows, dim, seed)
    return scores(codes, types, seed), scores(pca.transform(x), types, seed)


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
    parser.add_argument("--scvi", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    methods = {"scVI": ("scvi", ())} if asked.scvi else METHODS
    facts = {
        "protocol": f"kNN of {NEIGHBOURS} in {FOLDS} folds; ARI of k-means; mean and standard error over seeds",
        "dim": asked.dim,
        "budget": "400 epochs, the default of scvi-tools" if asked.scvi else asked.budget,
        "seeds": asked.seeds,
        "commit": commit(),
        "hardware": hardware(),
    }
    found = done(asked.out, facts) or {name: [] for name in ("PCA", *methods)}
    for seed in range(asked.seeds):
        for name, (method, changes) in methods.items():
            if len(found[name]) > seed:
                continue
            if asked.scvi:
                own, pca = trial_of_scvi(asked.counts, asked.dim, seed)
            else:
                own, pca = trial(asked.counts, method, changes, asked.dim, asked.budget, seed)
            found[name].append(own)
            found["PCA"] = found["PCA"] if len(found["PCA"]) > seed else [*found["PCA"], pca]
            print(name, seed, own, pca, flush=True)
            table = {
                name: {score: mean_and_error([one[score] for one in rows]) for score in ("knn", "ari")}
                for name, rows in found.items()
                if rows
            }
            asked.out.write_text(json.dumps({**facts, "table": table, "runs": found}, indent=2) + "\n")


def done(path: Path, facts: dict) -> dict[str, list[dict]] | None:
    """The trials that a file holds, where it has the same settings, commit and machine."""
    held = json.loads(path.read_text()) if path.exists() else {}
    return held["runs"] if {name: held.get(name) for name in facts} == facts else None


if __name__ == "__main__":
    main()
