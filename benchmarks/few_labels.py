"""Few labels: a code learned from all rows and a linear head, beside PCA of equal size and the same head.

python benchmarks/few_labels.py --cells COUNTS.npz --budget 30000ex --out results/few-labels.json

Digits of scikit-learn, and pbmc68k where its counts are given. Half of the rows are for testing. The code is learned
once, from the rows that are not, without labels; then ten draws of so many labels a class teach a logistic regression
on standardised codes, and the same draws one on PCA. The difference is taken draw by draw.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import diffrep
from diffrep.data.values import counted
from diffrep.shapes import mean_and_error
from diffrep.studies.study import commit, hardware

DRAWS, PER_CLASS = 10, (1, 5, 10)


def drawn(y: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Positions of so many rows of each class (all of a class that has fewer)."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(y == c))[:per_class] for c in np.unique(y)])


def compared(codes: tuple, pca: tuple, y: np.ndarray, y_test: np.ndarray) -> dict[str, dict]:
    """Accuracy of both over the draws, and their difference; codes and pca: (train, test) of each."""
    table = {}
    for per_class in PER_CLASS:
        rows = {"code": [], "pca": []}
        for seed in range(DRAWS):
            few = drawn(y, per_class, seed)
            for name, (train, test) in (("code", codes), ("pca", pca)):
                head = make_pipeline(StandardScaler().fit(train), LogisticRegression(max_iter=2000))
                scaled = head[0].transform(train[few])
                right = head[1].fit(scaled, y[few]).predict(head[0].transform(test)) == y_test
                rows[name].append(float(right.mean()))
        gain = np.subtract(rows["code"], rows["pca"])
        table[str(per_class)] = {
            **{name: mean_and_error(values) for name, values in rows.items()},
            "difference": mean_and_error(gain),
            "draws_won": int((gain > 0).sum()),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", default="60000ex")
    parser.add_argument("--method", default="vae-vdm")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    digits = load_digits()
    sets = {"digits": (digits.data, digits.target, (1, 8, 8))}
    if asked.cells is not None:
        held = np.load(asked.cells)
        table = counted(held["counts"].astype(np.float64))
        sets["pbmc68k"] = (table, held["bulk_labels"].astype(int), None)
    found = {}
    for name, (x, y, shape) in sets.items():
        dim = 16 if name == "digits" else 10
        x, x_test, y, y_test = train_test_split(x, y, test_size=0.5, random_state=0, stratify=y)
        encoder = diffrep.DiffusionEncoder(
            asked.method, dim=dim, budget=asked.budget, shape=shape, random_state=0, verbose=0
        ).fit(x)
        scale = StandardScaler().fit(x) if shape is None else None
        flat, flat_test = (part if scale is None else scale.transform(part) for part in (x, x_test))
        pca = PCA(dim, random_state=0).fit(flat)
        codes = encoder.transform(x), encoder.transform(x_test)
        found[name] = {
            "dim": dim,
            "train": len(x),
            "test": len(x_test),
            "labels_per_class": compared(codes, (pca.transform(flat), pca.transform(flat_test)), y, y_test),
        }
        print(name, json.dumps(found[name]["labels_per_class"]), flush=True)
    facts = {
        "protocol": "logistic regression on standardised codes; mean and standard error over 10 draws of labels",
        "method": asked.method,
        "budget": asked.budget,
        "commit": commit(),
        "hardware": hardware(),
        "data": found,
    }
    asked.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
