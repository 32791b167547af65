"""Everything that `diffrep evaluate` says about a run, and the file that it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch

from diffrep.checkpoints import write_bytes
from diffrep.data import Examples, Splits
from diffrep.errors import UserError
from diffrep.evaluation import bound as bounds
from diffrep.evaluation import probes
from diffrep.evaluation.bound import batches, evaluating
from diffrep.model import Model
from diffrep.runs import METRICS, Run, facts_of

Progress = Callable[[str, int, int], None]  # what is measured, examples done, examples in all


def evaluate(
    run: Run,
    splits: Splits | None = None,
    levels: int = 8,
    probe_examples: int = 20_000,
    progress: Progress = lambda what, done, of: None,
) -> dict:
    """Bound, rate, active units and probes on the whole test split; written to RUN/metrics.json and returned.

    levels: noise levels for each example in the bound. A model without a bound says why under "no_bound".
    """
    splits = splits or run.splits()
    metrics = {
        "method": run.settings.method,
        "data": run.card.source,
        "shape": list(run.card.shape),
        "examples": len(splits.test),
        "protocol": bounds.PROTOCOL,
        "levels": levels,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "trained": facts_of(run.directory),
        **_bound(run.model, splits.test, levels, progress),
        "probes": _probes(run.model, splits, probe_examples, progress),
    }
    write_bytes(run.directory / METRICS, (json.dumps(metrics, indent=2) + "\n").encode())
    return metrics


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


def _bound(model: Model, test: Examples, levels: int, progress: Progress) -> dict:
    try:
        result = bounds.bound(model, test, levels, progress=_counting("bound", len(test), progress))
    except UserError as no_bound:
        return {"bound": None, "no_bound": str(no_bound), "rate_nats": None, "active_units": None}
    unit = "bits/dim" if test.bins else "bits/dim of a density (continuous data)"
    return {
        "bound": {**result.summary(), "unit": unit},
        "rate_nats": result.rate_nats,
        "active_units": result.active_units,
    }


def _probes(model: Model, splits: Splits, most: int, progress: Progress) -> dict:
    """The linear probe on codes; empty where there are no codes or no labels."""
    parts = (splits.train, splits.valid, splits.test)
    if not model.has_code or any(part.labels is None for part in parts):
        return {}
    train = splits.train if len(splits.train) <= most else splits.train.subset(_spread(len(splits.train), most))
    seen = [(codes(model, part), part.require_labels().cpu().numpy()) for part in (train, splits.valid, splits.test)]
    progress("linear probe", 0, 1)
    result = probes.linear(seen[0], seen[1], seen[2], most)
    progress("linear probe", 1, 1)
    return {"linear": result["accuracy"], "linear_se": result["se"], "linear_protocol": result}


def _spread(total: int, count: int) -> torch.Tensor:
    return torch.linspace(0, total - 1, count).long()


def _counting(what: str, total: int, progress: Progress) -> Callable[[int], None]:
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(what, done, total)

    return count
