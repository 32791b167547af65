"""Everything that `diffrep evaluate` says about a run, and the file that it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import numpy as np
import torch

from diffrep.data import Examples, Splits
from diffrep.data.batches import batches
from diffrep.errors import UserError
from diffrep.evaluation import bound as bounds
from diffrep.evaluation.refine import PROTOCOL, refined
from diffrep.models.base import Model, evaluating
from diffrep.models.diffusion import DiffusionModel
from diffrep.probes import linear
from diffrep.probes.neighbours import knn
from diffrep.probes.overlap import overlap
from diffrep.progress import Progress, counting
from diffrep.runs.records import METRICS
from diffrep.runs.run import Run, facts_of

BATCH = 250
PROBED = 20_000  # training examples whose codes are probed
REFINED = 1_000  # test examples whose codes are refined


def evaluate(
    run: Run,
    splits: Splits | None = None,
    levels: int = 8,
    probe_examples: int = PROBED,
    flow: int = 0,
    refine: int = 0,
    progress: Progress = lambda what, done, of: None,
) -> dict:
    """Bound, rate, active units and probes on the whole test split; written to RUN/metrics.json and returned.

    levels: noise levels for each example in the bound. A model without a bound says why under "no_bound"; what
    removing noise costs it, with the code and without, stands under "denoising" in nats/dim, apart from any bound.
    Where codes cannot be probed, "no_probe" says why. flow: also the likelihood along the probability flow, on so many
    test examples; UserError for a model with a code. refine: also the bound of codes that so many gradient steps have
    improved for single examples, under "refined"; "no_refined" says why where it cannot be. What they gain is measured
    on at most 1,000 evenly spread examples, and taken from the bound and the rate of the whole split.
    A run with noise.steps also has the bound of that finite chain, under "bound_in_steps".
    """
    splits = splits or run.splits()
    flowed = {"flow": _flow(run.model, splits.test, flow, progress)} if flow else {}  # first: it may refuse
    bound = _bound(run, splits.test, levels, progress)
    metrics = {
        "method": run.settings.method,
        "data": run.card.source,
        "shape": list(run.card.shape),
        "examples": len(splits.test),
        "protocol": bounds.PROTOCOL,
        "levels": levels,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "trained": facts_of(run.directory),
        **bound,
        **flowed,
        **(_refined(run.model, splits.test, levels, refine, bound, progress) if refine else {}),
        **_probes(run.model, splits, probe_examples, progress),
    }
    return run.keep(METRICS, metrics)


def parts_of(splits: Splits, most: int = PROBED) -> list[Examples]:
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
    means = []
    with evaluating(model) as device:
        for chunk in batches(examples, batch, 0, device):
            means.append(model.encode(chunk.x, t).mean.cpu().numpy())
            progress(len(chunk))
    return np.concatenate(means)


def _bound(run: Run, test: Examples, levels: int, progress: Progress) -> dict:
    model = run.model
    try:
        result = bounds.bound(model, test, levels, progress=counting("bound", len(test), progress))
    except UserError as no_bound:
        none = {"bound": None, "no_bound": str(no_bound), "rate_nats": None, "active_units": None}
        return {**none, "denoising": _denoising(model, test, levels, run.settings.code.drop > 0, progress)}
    unit = "bits/dim" if test.bins else "bits/dim of a density (continuous data)"
    return {
        "bound": {**(summary := result.summary()), "unit": unit},
        **_worse_than_even(summary["bits_per_dim"], test.bins),
        "rate_nats": result.rate_nats,
        "active_units": result.active_units,
        **_in_steps(run, result, test, progress),
    }


def _worse_than_even(bits: float, bins: int | None) -> dict:
    """A sentence where a bound is above log2(levels), which a model has that calls all levels equally likely."""
    if bins is None or bits <= math.log2(bins):
        return {}
    said = (
        f"the bound is above log2({bins:,}) = {math.log2(bins):.2f} bits/dim, which calling all levels equally likely"
        " would cost: the model has not learned yet; train longer, or with a smaller train.lr."
    )
    return {"worse_than_even": said}


def _in_steps(run: Run, continuous: bounds.Bound, test: Examples, progress: Progress) -> dict:
    """The bound of the finite chain, where the run was trained on one, beside that of continuous time."""
    steps, model = run.settings.noise.steps, run.model
    if steps is None or getattr(model, "denoiser", None) is None:
        return {}
    count = counting(f"bound in {steps} steps", len(test), progress)
    result = bounds.in_steps(cast(DiffusionModel, model), continuous, test, steps, progress=count)
    return {"bound_in_steps": {**result.summary(), "steps": steps, "protocol": bounds.IN_STEPS}}


@torch.no_grad()
def _denoising(model: Model, test: Examples, levels: int, dropped: bool, progress: Progress) -> dict | None:
    """The diffusion loss at weight one in nats/dim, with the code and, where codes were dropped in training, without.

    Both meet the same noise. None for a model that removes none.
    """
    losses: dict[str, float | None] = {"with_code": None, "without_code": None}
    dims = math.prod(test.shape) * len(test)
    try:
        with evaluating(model) as device:
            for name in ("with_code", "without_code") if dropped else ("with_code",):
                count, nats = counting(f"denoising {name.replace('_', ' ')}", len(test), progress), 0.0
                for chunk in batches(test, BATCH, 0, device):
                    by_level = model.denoising_by_level(chunk, levels, with_code=name == "with_code")
                    nats += float(by_level.double().mean(1).sum())
                    count(len(chunk))
                losses[name] = nats / dims
    except UserError:
        return None
    return losses


def _flow(model: Model, test: Examples, most: int, progress: Progress, steps: int = 50) -> dict:
    """-log p(x) along the probability flow in bits/dim, on evenly spread examples of the split."""
    part = test.subset(test.spread(most))
    count, nats = counting("flow likelihood", len(part), progress), []
    with evaluating(model) as device:
        for chunk in batches(part, BATCH, 0, device):
            nats.append(model.flow_bound(chunk, steps).cpu())
            count(len(chunk))
    result = bounds.Bound({"flow": torch.cat(nats)}, test.shape, steps, None).summary()
    return {
        "bits_per_dim": result["bits_per_dim"],
        "bits_per_dim_se": result["bits_per_dim_se"],
        "examples": len(part),
        "steps": steps,
        "dequantisation": "uniform" if test.bins else "none (continuous data)",
    }


def _refined(model: Model, test: Examples, levels: int, steps: int, whole: dict, progress: Progress) -> dict:
    """The bound of refined codes, and the part of the amortisation gap that they close; whole: as of `_bound`."""
    part = test.subset(test.spread(REFINED))
    try:
        result = refined(model, part, steps, levels, progress=counting("refined codes", len(part), progress))
    except UserError as not_refined:
        return {"no_refined": str(not_refined)}
    gap, error = result.gap()
    bits = 1 / (math.prod(test.shape) * math.log(2))
    whole_error = math.hypot(whole["bound"]["bits_per_dim_se"], bits * error)
    if len(part) == len(test):  # the gap goes with the bound of its example
        whole_error = result.refined.summary()["bits_per_dim_se"]
    return {
        "refined": {
            "bits_per_dim": whole["bound"]["bits_per_dim"] - bits * gap,
            "bits_per_dim_se": whole_error,
            "rate_nats": whole["rate_nats"] + result.rate_change,
            "gap_nats": gap,
            "gap_nats_se": error,
            "examples": len(part),
            "steps": steps,
            "protocol": PROTOCOL,
        }
    }


def _probes(model: Model, splits: Splits, most: int, progress: Progress) -> dict:
    """Linear and kNN probe on codes (of t = 1/2, where they depend on t); why there is none where it cannot be."""
    if not model.has_code:
        return {"probes": {}, "no_probe": "this method has no code"}
    parts = parts_of(splits, most)
    try:
        labels = [part.require_labels().cpu().numpy() for part in parts]
        count = counting("codes", sum(map(len, parts)), progress)
        train, valid, test = ((codes(model, part, progress=count), y) for part, y in zip(parts, labels, strict=True))
        progress("linear probe", 0, None)
        result = linear.linear(train, valid, test, most)
        progress("kNN probe", 0, None)
        voted = knn(train, valid, test)
    except UserError as no_probe:
        return {"probes": {}, "no_probe": str(no_probe)}
    return {
        "probes": {
            "linear": result["accuracy"],
            "linear_se": result["se"],
            "linear_protocol": result,
            "knn": voted["accuracy"],
            "knn_se": voted["se"],
            "knn_protocol": voted,
            "overlap": overlap(splits.train.digests, splits.test.digests),
        }
    }
