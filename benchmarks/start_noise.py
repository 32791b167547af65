"""How much of the walk a better start saves: Frechet distance by where sampling begins, and what from.

DRL's table (Abstreiter et al. 2021, on sampling from t_init) for any trained run. The time between two steps stays the
same, so beginning at t = 0.6 takes six steps in ten.

python benchmarks/start_noise.py RUN [--features pixels] [-n 1000] [--out results/start-noise.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from diffrep import runs
from diffrep.denoising.samplers import Sampling
from diffrep.evaluation.feature_networks import Features
from diffrep.measures.distance import features_of
from diffrep.models.base import Model
from diffrep.models.warm_start import GUESSES, Guess, fitted, sample_from
from diffrep.probes.quality import PROTOCOL, Moments, frechet, moments
from diffrep.shapes import Draws
from diffrep.studies.study import commit, hardware

CHUNK = 250


def sampled(guess: Guess, model: Model, t: float, arguments: argparse.Namespace) -> list[Tensor]:
    """Samples in chunks, the same random numbers for every start and t."""
    sizes = [min(CHUNK, arguments.n - begun) for begun in range(0, arguments.n, CHUNK)]
    steps, device = max(1, round(t * arguments.steps)), next(model.parameters()).device
    return [
        sample_from(
            guess, model, t, size, Draws.of(1000 * arguments.seed + k, device), Sampling(arguments.sampler, steps)
        )
        for k, size in enumerate(sizes)
    ]


@torch.no_grad()
def moments_of(judge: Features, chunks: list[Tensor]) -> Moments:
    return moments(judge.of(chunk) for chunk in chunks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a run")
    parser.add_argument("--features", default="pixels", help="as of `diffrep distance`")
    parser.add_argument("-n", type=int, default=1000, help="samples of each cell")
    parser.add_argument("--t-init", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    parser.add_argument("--start", nargs="+", default=list(GUESSES), choices=list(GUESSES))
    parser.add_argument("--sampler", default="dpm")
    parser.add_argument("--steps", type=int, default=100, help="of a whole walk, from t = 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    run = runs.load(arguments.run)
    splits, judge = run.splits(), features_of(arguments.features, run)
    test = splits.test.subset(splits.test.evenly(10_000))
    chunks = [test.batch(index).x.to(run.device) for index in torch.arange(len(test)).split(CHUNK)]
    truth = moments_of(judge, chunks)
    guesses = {name: fitted(name, splits.train, run.device) for name in arguments.start}
    cells = []
    print("t_init", *guesses, sep="\t")
    for t in arguments.t_init:
        row = [frechet(truth, moments_of(judge, sampled(guess, run.model, t, arguments))) for guess in guesses.values()]
        cells += [{"t_init": t, "start": name, "frechet": value} for name, value in zip(guesses, row, strict=True)]
        print(t, *(f"{value:.3f}" for value in row), sep="\t", flush=True)
    if arguments.out:
        about = {
            "method": run.settings.method,
            "data": Path(run.card.source).name,
            "trained": runs.weights_metadata(run.directory),
            "features": judge.name,
            "protocol": PROTOCOL,
            "samples": arguments.n,
            "against": len(test),
            "sampler": arguments.sampler,
            "steps": arguments.steps,
            "seed": arguments.seed,
            "commit": commit(),
            "hardware": hardware(),
        }
        arguments.out.write_text(json.dumps({**about, "cells": cells}, indent=2) + "\n")


if __name__ == "__main__":
    main()
