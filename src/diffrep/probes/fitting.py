"""A classifier fitted by gradient steps: for a number of steps, or until validation accuracy stops rising."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.errors import UserError

Labelled = tuple[Tensor, Tensor]  # examples (N, ...), and their classes (N,) int64


@dataclass(frozen=True)
class Fitted:
    """The step of a fit that was best on validation (0: before any step), and its accuracy there."""

    step: int
    valid_accuracy: float


@dataclass(frozen=True)
class Stopping:
    """When a fit ends: after `steps`, or after `patience` checks of validation without a better one (None: never).

    checks: how many there are, evenly over the steps.
    """

    steps: int
    checks: int
    patience: int | None = None


def fit(
    classifier: nn.Module,
    loss: Callable[[], Tensor],
    valid: Labelled,
    groups: Sequence[dict],
    stopping: Stopping,
    seed: int,
    progress: Callable[[int], None] = lambda steps: None,
) -> Fitted:
    """Adam on `loss` in place; the classifier ends with the weights that were best at one of the checks.

    A check measures the accuracy on `valid`; the first is before any step, and the earliest of equals is kept. groups:
    parameters and learning rates, as an optimiser takes them. seed: of dropout. UserError: `valid` is empty.
    """
    if not len(valid[1]):
        raise UserError("the validation split has no labelled example to choose by; give it a larger share")
    steps, checks = stopping.steps, stopping.checks
    checked = {math.ceil(steps * (k + 1) / checks) for k in range(checks)}
    best, kept, in_vain = Fitted(0, accuracy(classifier, valid)), _copied(classifier), 0

    def check(step: int) -> bool:
        nonlocal best, kept, in_vain
        if step not in checked:
            return False
        right, in_vain = accuracy(classifier, valid), in_vain + 1
        if right > best.valid_accuracy:
            best, kept, in_vain = Fitted(step, right), _copied(classifier), 0
        return in_vain == stopping.patience

    descend(classifier, loss, groups, steps, seed, progress, check)
    classifier.load_state_dict(kept)
    return best


def descend(
    classifier: nn.Module,
    loss: Callable[[], Tensor],
    groups: Sequence[dict],
    steps: int,
    seed: int,
    progress: Callable[[int], None] = lambda steps: None,
    enough: Callable[[int], bool] = lambda step: False,
) -> None:
    """`steps` steps of Adam on `loss`, in place; the classifier ends in evaluation mode.

    groups: parameters and learning rates, as an optimiser takes them. seed: of dropout. enough: called after
    each step with its number; True ends the fit.
    """
    optimizer = torch.optim.Adam(list(groups))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(1, steps + 1):
            classifier.train()
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            progress(1)
            if enough(step):
                break
    classifier.eval()


def cross_entropy(classifier: nn.Module, train: Labelled, batch: int, seed: int) -> Callable[[], Tensor]:
    """The mean cross-entropy, nats, of the next `batch` examples, in passes over all in orders that depend on the
    seed."""
    x, y = train
    order = shuffled(len(y), batch, torch.Generator().manual_seed(seed))

    def loss() -> Tensor:
        rows = next(order).to(x.device)
        return F.cross_entropy(classifier(x[rows]), y[rows])

    return loss


def shuffled(size: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of positions: each pass has all of `size`, in another order."""
    while True:
        yield from torch.randperm(size, generator=generator).split(batch)


@torch.no_grad()
def predicted(classifier: nn.Module, x: Tensor, batch: int = 500) -> Tensor:
    """(N,) the class of each example, in evaluation mode."""
    was_training = classifier.training
    classifier.eval()
    classes = torch.cat([classifier(chunk).argmax(1) for chunk in x.split(batch)])
    classifier.train(was_training)
    return classes


def accuracy(classifier: nn.Module, labelled: Labelled) -> float:
    """The share of the examples whose class is predicted."""
    x, y = labelled
    return float((predicted(classifier, x) == y).double().mean())


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}
