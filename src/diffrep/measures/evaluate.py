"""The measurements of `diffrep evaluate`, and their file."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from diffrep.amounts import amount
from diffrep.data import Examples, Splits
from diffrep.data.batches import batches
from diffrep.errors import UserError
from diffrep.evaluation import bound as bounds
from diffrep.evaluation.encoding import encode_split
from diffrep.evaluation.refine import PROTOCOL, refined
from diffrep.measures.asked import asked
from diffrep.models.base import Model, evaluating
from diffrep.probes import linear
from diffrep.probes.neighbours import knn
from diffrep.probes.overlap import overlap
from diffrep.progress import Progress, counting
from diffrep.runs.directory import weights_metadata
from diffrep.runs.records import METRICS
from diffrep.runs.results import Bounded, CodeProbes, Denoising, FlowLikelihood, Metrics, RefinedBound
from diffrep.runs.run import Run
from diffrep.shapes import bits_per_dim, mean_and_error
from diffrep.threads import in_order

BATCH = 250
MOST_STEPS = 3200  # of the probability flow
LEVELS = 8  # noise levels for each example, where no pilot chooses them
PROBED = 20_000  # training examples whose codes are probed
REFINED = 1_000  # test examples whose codes are refined


def evaluate(
    run: Run,
    splits: Splits | None = None,
    levels: int | None = None,
    probe_examples: int = PROBED,
    flow: int = 0,
    refine: int = 0,
    progress: Progress = lambda what, done, of: None,
) -> Metrics:
    """Bound, rate, active units and probes on the whole test split; written to RUN/metrics.json and returned.

    levels: noise levels for each example in the bound; None: a pilot chooses. For a model without a bound, "no_bound"
    says why, and "denoising" is its denoising loss in nats/dim, with the code and without. Where codes cannot be
    probed, "no_probe" says why. flow: number of test examples for the likelihood along the probability flow; UserError
    for a model with a code. refine: number of gradient steps that refine codes; their bound is "refined", or
    "no_refined" says why there is none. The gain is measured on at most 1,000 evenly chosen examples and subtracted
    from the bound of the whole split. A run with noise.steps also has the bound of that finite chain, "bound_in_steps".
    """
    splits, model = splits or run.splits(), run.model
    test = splits.test
    flowed = _flow(model, test, flow, progress) if flow else None  # first, since it may raise an error
    metrics: Metrics = {
        "method": run.settings.method,
        "data": run.card.source,
        "shape": list(run.card.shape),
        "examples": len(test),
        "protocol": bounds.PROTOCOL,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained": weights_metadata(run.directory),
        **_bound(run, test, levels, progress),
        "probes": {},
        "options": asked(evaluate, levels=levels, flow=flow, refine=refine),
    }
    if flowed is not None:
        metrics["flow"] = flowed
    if refine:
        try:
            metrics["refined"] = _refined(model, test, levels or LEVELS, refine, metrics, progress)
        except UserError as not_refined:
            metrics["no_refined"] = str(not_refined)
    try:
        metrics["probes"] = _probes(model, splits, probe_examples, progress)
    except UserError as no_probe:
        metrics["no_probe"] = str(no_probe)
    return run.keep(METRICS, metrics)


def probe_splits(splits: Splits, most: int = PROBED) -> list[Examples]:
    """Train, of which at most `most` examples, labelled ones first; valid; test."""
    train = splits.train
    return [train.subset(train.labelled_first(most)) if len(train) > most else train, splits.valid, splits.test]


@torch.no_grad()
def codes(
    model: Model,
    examples: Examples,
    t: float | None = None,
    batch: int = 500,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """(N, d) mean codes of a split, in order; t for a time-conditioned code."""
    return encode_split(model, examples, t, batch, progress).mean.numpy()


def _bound(run: Run, test: Examples, levels: int | None, progress: Progress) -> Bounded:
    """The bound with rate and active units; without a bound, the reason and the denoising loss."""
    model = run.model
    if model.no_bound is not None:
        return {
            "bound": None,
            "no_bound": model.no_bound,
            "levels": levels or LEVELS,
            "rate_nats": None,
            "active_units": None,
            "denoising": _denoising(model, test, levels or LEVELS, progress),
        }
    result = bounds.bound(model, test, levels, progress=counting("bound", len(test), progress))
    unit = "bits/dim" if test.bins else "bits/dim of a density (continuous data)"
    bounded: Bounded = {
        "bound": {**result.summary(), "unit": unit},
        "levels": result.levels,
        "rate_nats": result.rate_nats,
        "active_units": result.active_units,
    }
    if test.bins is not None and result.summary()["bits_per_dim"] > math.log2(test.bins):
        bounded["worse_than_even"] = (
            f"the bound is above log2({test.bins:,}) = {math.log2(test.bins):.2f} bits/dim, that of equally likely grey"
            " levels: the model has not learned yet; train longer, or with a smaller train.lr."
        )
    steps = run.settings.noise.steps
    if steps is not None and model.diffusion is not None:
        count = counting(f"bound in {amount(steps, 'step')}", len(test), progress)
        chain = bounds.in_steps(model, result, test, steps, progress=count)
        bounded["bound_in_steps"] = {**chain.summary(), "steps": steps, "protocol": bounds.IN_STEPS}
    return bounded


@torch.no_grad()
def _denoising(model: Model, test: Examples, levels: int, progress: Progress) -> Denoising | None:
    """The diffusion loss at weight one in nats/dim, with the code and, where codes were dropped in training, without.

    Both have the same noise. None for a model without diffusion.
    """
    decoder = model.diffusion
    if decoder is None:
        return None

    def nats_per_dim(with_code: bool) -> float:
        words = "with code" if with_code else "without code"
        count, nats = counting(f"denoising {words}", len(test), progress), 0.0
        with evaluating(model) as device:
            denoised = partial(decoder.denoising_by_level, levels=levels, with_code=with_code)
            for chunk, by_level in in_order(denoised, batches(test, BATCH, 0, device), device):
                nats += float(by_level.double().mean(1).sum())
                count(len(chunk))
        return nats / (math.prod(test.shape) * len(test))

    return {"with_code": nats_per_dim(True), "without_code": nats_per_dim(False) if decoder.drop else None}


def _flow(model: Model, test: Examples, most: int, progress: Progress, steps: int = 50) -> FlowLikelihood:
    """-log p(x) along the probability flow in bits/dim, on evenly chosen examples of the split.

    The number of steps is doubled, with the same noise, until the mean changes by at most a tenth of its standard error
    (for one example: by 0.01 nats), or up to `MOST_STEPS`. The last change bounds the remaining error of the steps and
    is part of the stated error.
    """
    some = test.subset(test.evenly(most))

    def mean_of(steps: int) -> tuple[float, float]:
        count, nats = counting(f"flow likelihood in {amount(steps, 'step')}", len(some), progress), []
        with evaluating(model) as device:
            bounded = partial(model.flow_bound, steps=steps)
            for chunk, of_chunk in in_order(bounded, batches(some, BATCH, 0, device), device):
                nats.append(of_chunk.cpu())
                count(len(chunk))
        return mean_and_error(torch.cat(nats))

    (before, _), steps = mean_of(steps), 2 * steps
    mean, error = mean_of(steps)
    while abs(mean - before) > (0.1 * error if math.isfinite(error) else 0.01) and steps < MOST_STEPS:
        before, steps = mean, 2 * steps
        mean, error = mean_of(steps)
    return {
        "bits_per_dim": bits_per_dim(mean, test.shape),
        "bits_per_dim_se": bits_per_dim(math.hypot(error, mean - before), test.shape),
        "bits_per_dim_by_steps": bits_per_dim(abs(mean - before), test.shape),
        "examples": len(some),
        "steps": steps,
        "dequantisation": "uniform" if test.bins else "none (continuous data)",
    }


def _refined(model: Model, test: Examples, levels: int, steps: int, whole: Bounded, progress: Progress) -> RefinedBound:
    """The bound of refined codes, and the amortisation gap that they close; whole: the bound of the whole split."""
    some = test.subset(test.evenly(REFINED))
    result = refined(model, some, steps, levels, progress=counting("refined codes", len(some), progress))
    gap, error = result.gap()
    bound, rate = whole["bound"], whole["rate_nats"]
    assert bound is not None and rate is not None, "a model whose codes can be refined has a bound"
    bits = bits_per_dim(1.0, test.shape)
    whole_error = math.hypot(bound["bits_per_dim_se"], bits * error)
    if len(some) == len(test):  # the gap and the bound of an example correlate
        whole_error = result.refined.summary()["bits_per_dim_se"]
    return {
        "bits_per_dim": bound["bits_per_dim"] - bits * gap,
        "bits_per_dim_se": whole_error,
        "rate_nats": rate + result.rate_change,
        "gap_nats": gap,
        "gap_nats_se": error,
        "examples": len(some),
        "steps": steps,
        "protocol": PROTOCOL,
    }


def _probes(model: Model, splits: Splits, most: int, progress: Progress) -> CodeProbes:
    """Linear and kNN probe on codes (of t = 1/2, where they depend on t); UserError where there are no codes or
    labels."""
    if not model.has_code:
        raise UserError("this method has no code")
    probed = probe_splits(splits, most)
    labels = [split.require_labels().cpu().numpy() for split in probed]
    count = counting("codes", sum(map(len, probed)), progress)
    train, valid, test = ((codes(model, split, progress=count), y) for split, y in zip(probed, labels, strict=True))
    progress("linear probe", 0, None)
    result = linear.linear(train, valid, test, most)
    progress("kNN probe", 0, None)
    voted = knn(train, valid, test)
    return {
        "linear": result["accuracy"],
        "linear_se": result["se"],
        "linear_protocol": result,
        "knn": voted["accuracy"],
        "knn_se": voted["se"],
        "knn_protocol": voted,
        "overlap": overlap(splits.train.digests, splits.test.digests),
    }
