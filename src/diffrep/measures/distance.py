"""Distances between samples of a run and its data, beside those between two splits of the data, and their file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from diffrep.data import Examples, Splits
from diffrep.data.batches import batches
from diffrep.data.stores import Grid
from diffrep.denoising.samplers import ENOUGH, USUAL, Sampling
from diffrep.errors import UserError
from diffrep.evaluation.feature_networks import Features, named, public
from diffrep.measures.asked import asked
from diffrep.models.base import evaluating
from diffrep.probes import quality
from diffrep.progress import Progress, counting, silent
from diffrep.runs.card import form
from diffrep.runs.records import DISTANCE, SAMPLES, weights_digest
from diffrep.runs.results import DistanceFile
from diffrep.runs.run import Run, load
from diffrep.shapes import Draws, piece_seed
from diffrep.threads import in_order
from diffrep.training.checkpoints import BrokenFile, load_tensors, save_tensors

CHUNK = 100  # samples in a batch and in a file


def distance(
    run: Run,
    features: str = "pixels",
    n: int = 2000,
    splits: Splits | None = None,
    sampling: Sampling = USUAL,
    seed: int = 0,
    progress: Progress = silent,
) -> DistanceFile:
    """Frechet and kernel distance, precision and recall of n samples against n test examples -> RUN/distance.json.

    `..._floor` is the same for n training examples in place of the samples: the result of a perfect model of the
    training data, finite-sample bias included. n is at most the size of the smaller split; "samples" states the number
    and "features" the feature function (see `features_of`). Samples are kept in RUN/samples, a file for each hundred,
    so that a stopped call can continue. UserError: missing features or samples.
    """
    splits, options = splits or run.splits(), asked(distance, features=public(features), n=n, seed=seed)
    n = min(n, len(splits.train), len(splits.test))
    judge = features_of(features, run)
    count = counting("features", 3 * n, progress)
    test, train = (
        _features(judge, split.subset(split.evenly(n)), run.device, count) for split in (splits.test, splits.train)
    )
    drawn = sampled(run, n, sampling, seed, counting("samples", n, progress))
    fake = _each(judge, drawn.split(CHUNK), run.device, count)
    progress("distances", 0, None)
    floor = quality.compare(test, train)
    result: DistanceFile = {
        "method": run.settings.method,
        "data": run.card.source,
        "features": judge.name,
        "protocol": quality.PROTOCOL,
        **quality.compare(test, fake),
        "frechet_floor": floor["frechet"],
        "kid_floor": floor["kid"],
        "kid_se_floor": floor["kid_se"],
        "precision_floor": floor["precision"],
        "recall_floor": floor["recall"],
        "seed": seed,
        "options": options | _asked_of(sampling),
    }
    if run.model.by_steps:
        result |= {"sampler": sampling.sampler, "steps": sampling.steps, "spacing": sampling.spacing}
    return run.keep(DISTANCE, result)


def features_of(text: str, run: Run) -> Features:
    """Features by name: run:PATH, the mean codes of another run on data of the same shape (such as those of a
    classifier), or one of `evaluation.feature_networks`. UserError where they do not fit the run's data."""
    kind, _, path = text.partition(":")
    if kind != "run":
        return named(text, run.device)
    other = load(path, "cpu" if run.device.type == "cpu" else "auto")
    if (other.card.shape, other.card.bins) != (run.card.shape, run.card.bins):
        raise UserError(
            f"{path} was trained on {form(other.card.shape, other.card.bins)} data and {run.directory} on"
            f" {form(run.card.shape, run.card.bins)}; give a run on data of the same shape and grey levels."
        )
    weights = weights_digest(other.model.state_dict())[:8]
    name = f"{public(text)} (codes of {other.settings.method} on {other.card.source}, weights {weights})"
    return Features(name, lambda x: other.model.encode(x).mean)


@torch.no_grad()
def sampled(
    run: Run, n: int, sampling: Sampling, seed: int, progress: Callable[[int], None] = lambda done: None
) -> Tensor:
    """n samples (n, *shape) of a run, rounded to the grey levels of its data, as a picture file would store them.

    Sample number i depends on sampling and seed alone, not on n. A chunk that is on disk is read.
    """
    of = {"weights": weights_digest(run.model.state_dict()), **asdict(sampling), "seed": seed}
    name = f"{sampling.sampler}-{sampling.spacing}-{sampling.steps}-{seed}"
    folder, grid, chunks = run.directory / SAMPLES / name, Grid(run.card.bins), []
    with evaluating(run.model) as device:
        for number in range(-(-n // CHUNK)):
            path = folder / f"{number:05d}.safetensors"
            stored = _kept(path, of)
            if stored is None:
                draws = Draws.of(piece_seed(seed, number), device)
                stored = _rounded(run.model.sample(CHUNK, draws, **asdict(sampling)).cpu(), run.card.bins)
                save_tensors(path, {"samples": stored}, of)
            chunks.append(grid.x(stored))
            progress(min(CHUNK, n - number * CHUNK))
    return torch.cat(chunks)[:n]


def table(result: DistanceFile) -> list[tuple[str, str, str]]:
    """Name, samples against test, training against test: the rows that the command line shows."""
    kid = f"{result['kid']:.4g} +- {result['kid_se']:.2g}"
    floor = f"{result['kid_floor']:.4g} +- {result['kid_se_floor']:.2g}"
    return [
        ("Frechet distance", f"{result['frechet']:.4g}", f"{result['frechet_floor']:.4g}"),
        ("kernel distance", kid, floor),
        ("precision", f"{result['precision']:.3f}", f"{result['precision_floor']:.3f}"),
        ("recall", f"{result['recall']:.3f}", f"{result['recall_floor']:.3f}"),
    ]


def _asked_of(sampling: Sampling) -> dict[str, object]:
    """The parts of a sampling that are not the usual ones of its sampler."""
    usual = {**asdict(USUAL), "steps": ENOUGH[sampling.sampler]}
    return {name: value for name, value in asdict(sampling).items() if value != usual[name]}


def _features(judge: Features, examples: Examples, device: torch.device, progress: Callable[[int], None]) -> Tensor:
    return _each(judge, (batch.x for batch in batches(examples, CHUNK, 0, device)), device, progress)


@torch.no_grad()
def _each(judge: Features, chunks: Iterable[Tensor], device: torch.device, progress: Callable[[int], None]) -> Tensor:
    """Features (N, d) of chunks (B, *shape), in their order."""
    features = []
    for x, of_chunk in in_order(lambda x: judge.of(x.to(device)), chunks, device):
        features.append(of_chunk.float().cpu())
        progress(len(x))
    return torch.cat(features)


def _kept(path: Path, of: dict) -> Tensor | None:
    """The chunk on disk; None where it is missing, broken or about other weights."""
    try:
        tensors, about = load_tensors(path)
    except BrokenFile:
        return None
    return tensors["samples"] if about == of else None


def _rounded(x: Tensor, bins: int | None) -> Tensor:
    """x -> grey levels as they are stored, the inverse of `Grid.x`; x itself for continuous data."""
    if bins is None:
        return x
    return ((x + 1) * (bins / 2)).floor().clamp(0, bins - 1).to(torch.uint8 if bins <= 256 else torch.int32)
