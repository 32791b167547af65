"""q(z | x) of single examples, improved by gradient steps on their own bounds: measures the amortisation gap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffrep.codes.posteriors import Code, Normal
from diffrep.data import Examples
from diffrep.data.batches import batches
from diffrep.errors import UserError
from diffrep.evaluation.bound import Bound
from diffrep.models.base import Model, evaluating
from diffrep.shapes import Batch, mean_and_error

PROTOCOL = "refined-1"  # evenly chosen examples; Adam at 0.1 falling to 0, on 4 levels; measured with noise of its own
NOISE = 7919  # seed of the noise in the gradient steps, other than that of the bound


@dataclass(frozen=True)
class Refined:
    """The bounds of the same examples with the same noise, for the encoder's codes and for refined ones."""

    encoded: Bound
    refined: Bound

    def gap(self) -> tuple[float, float]:
        """Nats for an example by which refining lowers the bound, and the standard error: the amortisation gap (Cremer
        et al. 2018, Eq. 3), or the share of it that these steps close."""
        return mean_and_error(self.encoded.total - self.refined.total)

    @property
    def rate_change(self) -> float:
        """Nats by which the rate of refined codes exceeds that of the encoder's."""
        return float((self.refined.parts["rate"] - self.encoded.parts["rate"]).double().mean())


def refined(
    model: Model,
    examples: Examples,
    steps: int,
    levels: int = 8,
    batch: int = 64,  # the graph of all levels of a batch is in memory
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Refined:
    """The bound of a model on every example of a split, with its own codes and with refined ones.

    An encoder is one function for all examples, so for a new example its q(z | x) is not optimal. Every q(z | x) gives
    a bound on -log p(x), and the optimal one the tightest (Hjelm et al. 2016; Kim et al. 2018). progress: as `bound`.
    UserError: no bound, or a code that is not Gaussian.
    """
    encoded: list[dict[str, Tensor]] = []
    better: list[dict[str, Tensor]] = []
    with evaluating(model) as device:
        noises = (batches(examples, batch, s, device) for s in (seed, seed, seed + NOISE))
        for first, again, practice in zip(*noises, strict=True):
            code = refine(model, practice, steps)
            with torch.no_grad():
                encoded.append(model.bound(first, levels))
                better.append(model.bound(again, levels, code))
            progress(len(first))
    return Refined(*(Bound(_joined(bounds), examples.shape, levels, None) for bounds in (encoded, better)))


def refine(model: Model, batch: Batch, steps: int, levels: int = 4, lr: float = 0.1) -> Code:
    """The Gaussian codes (B, d) after `steps` steps of Adam from the encoder's, each on the bound of its own example.

    Means move in units of the encoder's spread, spreads by factors; the learning rate falls linearly to zero. Each
    step has `levels` stratified noise levels for each example. UserError as for `refined`.
    """
    with torch.no_grad():
        start = model.encode(batch.x)
    if start.spread is None or start.family != Normal():
        raise UserError("only a Gaussian code can be refined; train vae-vdm or vae with code.kind=gaussian")
    mean, spread = start.mean, start.spread
    shift, stretch = (torch.zeros_like(mean, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.Adam([shift, stretch], lr)

    def moved() -> Code:
        return Code(mean + spread * shift, spread * stretch.exp())

    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        nats = torch.stack([*model.bound(batch, levels, moved()).values()]).sum()
        shift.grad, stretch.grad = torch.autograd.grad(nats, [shift, stretch])
        optimizer.step()
    with torch.no_grad():
        return moved()


def _joined(bounds: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([bound[name].cpu() for bound in bounds]) for name in bounds[0]}
