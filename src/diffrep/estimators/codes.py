"""Bounds row by row, and rows from codes: the result of a row does not depend on other rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from diffrep.data.examples import Examples
from diffrep.denoising.samplers import SMOOTH
from diffrep.models.base import Model, evaluating
from diffrep.shapes import Batch, Draws

ROWS, LEVELS = 500, 8
AT_ONCE = 512  # rows times noise levels of a pass of the decoder


@torch.no_grad()
def bounds(model: Model, examples: Examples, seed: int = 0, levels: int = LEVELS) -> np.ndarray:
    """(N,) the bound on -log p(x) of each example, nats; each with `levels` stratified noise levels of its own.

    UserError: the model has none.
    """
    nats = []
    with evaluating(model) as device:
        for rows in torch.arange(len(examples)).split(max(1, AT_ONCE // levels)):
            some = examples.batch(rows).to(device)
            x = some.x.repeat_interleave(levels, 0)
            draws = replace(Draws.of(seed, device), repeats=len(rows))  # each row has the numbers that it has alone
            batch = Batch(x, torch.arange(len(x)), draws=draws, covariate=some.covariate)
            terms = model.bound(batch, 1)
            nats.append(torch.stack([*terms.values()]).sum(0).double().reshape(len(rows), levels).mean(1).cpu())
    return torch.cat(nats).numpy()


@torch.no_grad()
def decoded(model: Model, z: np.ndarray, covariate: torch.Tensor | None = None, seed: int = 0) -> np.ndarray:
    """(N, *shape) from codes (N, d), all from the same noise and with the same covariate (1, K)."""
    shape, decoded_rows = model.shape, []
    with evaluating(model) as device:
        covariate = None if covariate is None else covariate.to(device)
        for some in torch.from_numpy(np.array(z, np.float32)).split(ROWS):
            draws = Draws.of(seed, device)
            x_1 = draws.normal(1, *shape).expand(len(some), *shape)
            decoded_rows.append(model.decode(some.to(device), len(some), draws, SMOOTH, x_1, covariate).cpu())
    return torch.cat(decoded_rows).numpy()


def sampled(model: Model, n: int, seed: int) -> np.ndarray:
    """(n, *shape) from the model."""
    with evaluating(model):
        return model.sample(n, seed=seed).cpu().numpy()
