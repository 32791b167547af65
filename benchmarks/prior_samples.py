"""Do samples from the prior look like data? A picture of 64 for each run, and how sure a classifier is of them.

The classifier is a run of the method `classifier` on the same data; its confidence is its largest probability. Beside
the samples stand as many test images, which is as sure as it gets, and noise of the data's grey levels, which is not.

python benchmarks/prior_samples.py RUN [RUN ...] --classifier RUN [-n 1000] [--pictures docs] [--out results/x.json]
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from diffrep import runs
from diffrep.commands.gallery import save_grid
from diffrep.shapes import Draws
from diffrep.studies.study import commit, hardware

CHUNK = 100


@torch.no_grad()
def confidence(classifier, x: Tensor) -> dict[str, float]:
    """Mean of the largest probability and its standard error, the share above 0.9, and the entropy of all classes."""
    log_p = torch.cat([classifier.log_probs(chunk) for chunk in x.split(CHUNK)])
    most, classes = log_p.exp().amax(1), log_p.exp().mean(0)
    return {
        "confidence": float(most.mean()),
        "confidence_se": float(most.std() / math.sqrt(len(most))),
        "sure": float((most > 0.9).float().mean()),
        "classes_nats": float(-(classes * classes.log()).sum()),  # log(10) = 2.303 where all ten are drawn alike
        "examples": len(x),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="directories of runs with a code")
    parser.add_argument("--classifier", type=Path, required=True, help="directory of a run of the method classifier")
    parser.add_argument("-n", type=int, default=1000, help="samples of each run")
    parser.add_argument("--steps", type=int, default=50, help="steps of the sampler")
    parser.add_argument("--pictures", type=Path, help="folder of the pictures")
    parser.add_argument("--out", type=Path, help="JSON file of the outcome")
    a = parser.parse_args()

    judge = runs.load(a.classifier)
    test = judge.splits().test
    x = test.batch(test.evenly(a.n)).x.to(judge.device)
    noise = x.flatten()[torch.randperm(x.numel(), generator=torch.Generator().manual_seed(0))].view_as(x)
    rows = {"test images": confidence(judge.model, x), "shuffled pixels": confidence(judge.model, noise)}
    for directory in a.runs:
        run = runs.load(directory)
        sizes = [min(CHUNK, a.n - begun) for begun in range(0, a.n, CHUNK)]
        drawn = [run.model.sample(n, Draws.of(k, run.device), steps=a.steps) for k, n in enumerate(sizes)]
        name, samples = run.settings.method, torch.cat(drawn).to(judge.device)
        rows[name] = confidence(judge.model, samples) | {"prior": type(run.model.prior).__name__}
        if a.pictures is not None:
            save_grid(samples[:64], a.pictures / f"samples-{name}.png")
        settings = run.settings.train
        rows[name] |= {
            "budget": settings.budget,
            "decoder_width": run.settings.decoder.width,
            "seed": run.settings.seed,
        }
    for name, row in rows.items():
        print(f"{name:16s} {row['confidence']:.3f} +- {row['confidence_se']:.3f}   above 0.9: {row['sure']:.1%}")
    if a.out is not None:
        content = {"data": Path(judge.card.source).name, "steps": a.steps, "rows": rows}
        a.out.write_text(json.dumps({**content, "commit": commit(), "hardware": hardware()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
