"""Which learning rate of the encoder suits fine-tuning on few labels: accuracy on the validation split, over rates.

python benchmarks/finetune_rate.py RUN [RUN ...] --out results/finetune-rate.json

The rate is fixed in `evaluation/finetune.py`, since few labels leave nothing to choose by; this table chose it. The
test split is not touched.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import diffrep
from diffrep.evaluation import finetune
from diffrep.files import write_bytes
from diffrep.measures.semi import examples_and_labels, inputs
from diffrep.probes.fitting import accuracy
from diffrep.studies.study import commit, hardware

RATES, COUNTS, DRAWS, POOL, SCORED = (0.0, 1e-4, 3e-4, 1e-3, 3e-3), (1, 4, 10, 40), 3, 5000, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    rows: list[dict] = []
    for directory in asked.runs:
        run = diffrep.load(directory)
        splits, encoder = run.splits(), finetune.encoder_of(run.model)
        every = inputs(splits.train.subset(splits.train.evenly(POOL)), run.device)
        valid = examples_and_labels(splits.valid.subset(splits.valid.labelled_first(SCORED)), run.device)
        for count in COUNTS:
            for rate in RATES:
                scores = []
                for seed in range(DRAWS):
                    few = examples_and_labels(splits.train.subset(splits.train.few_labels(count, seed)), run.device)
                    scores.append(accuracy(finetune.finetune(encoder, few, every, rate, seed=seed), valid))
                mean = float(torch.tensor(scores).mean())
                rows.append({"run": directory.name, "method": run.settings.method, "data": Path(run.card.source).name})
                rows[-1] |= {"labels_per_class": count, "rate": rate, "valid_accuracy": mean, "draws": scores}
                print(directory.name, count, rate, f"{mean:.4f}", flush=True)
                facts = {"steps": finetune.STEPS, "scored_on": "validation", "commit": commit(), "hardware": hardware()}
                write_bytes(asked.out, (json.dumps(facts | {"rows": rows}, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
