"""Classifiers on a time-conditioned code at one time, and at several times together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn

from diffrep.data import Examples
from diffrep.errors import UserError
from diffrep.evaluation.encoding import encode_batches
from diffrep.models.base import Model
from diffrep.probes import linear
from diffrep.probes.fitting import Labelled, Stopping, cross_entropy, fit, predicted
from diffrep.probes.mlp import BATCH, RATE, perceptron
from diffrep.probes.result import error_of_share
from diffrep.progress import Progress, counting, silent

PROTOCOL = "times-2"  # P2F: 512 units, dropout 1/4, batches of 256, Adam 1e-3; the epoch by validation, then test once
PATIENCE = 20  # epochs without a better one
LINEAR = ("mean", "concat")  # ways that work for a linear probe too


class Score(TypedDict):
    """Accuracy on test and its standard error, on validation, and the standard deviation between fits."""

    accuracy: float
    se: float
    spread: float | None
    valid_accuracy: float


TimedSplits = tuple[Labelled, Labelled, Labelled]  # train, valid, test: codes (N, k, d) and classes (N,)


def even_times(k: int) -> list[float]:
    """k times, even in (0, 1): the middles of k equal cells."""
    return [(i + 0.5) / k for i in range(k)]


@torch.no_grad()
def codes_over_times(
    model: Model,
    examples: Examples,
    times: Sequence[float],
    batch: int = 500,
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """(N, k, d) mean codes at each of `times`; UserError for a code that does not depend on t."""
    if not model.timed:
        raise UserError("this code is the same at all t, so there is nothing to combine; train tdrl or tvdrl.")
    encoded = encode_batches(model, examples, times, batch, progress=progress)
    return torch.cat([torch.stack([code.mean for code in codes], 1).cpu() for _, codes in encoded])


class Recurrent(nn.Module):
    """codes (B, k, d) -> scores (B, classes): a GRU over the times and a linear map of its last state (P2F)."""

    def __init__(self, dim: int, classes: int, width: int = 256):
        super().__init__()
        self.gru = nn.GRU(dim, width, batch_first=True)
        self.read = nn.Linear(width, classes)

    def forward(self, codes: Tensor) -> Tensor:
        return self.read(self.gru(codes)[1][-1])


class Attending(nn.Module):
    """codes (B, k, d) -> scores (B, classes): one transformer layer with learned positions, then the mean over
    times."""

    def __init__(self, k: int, dim: int, classes: int, width: int = 256, heads: int = 4):
        super().__init__()
        self.token = nn.Linear(dim, width)
        self.place = nn.Parameter(0.02 * torch.randn(k, width))
        self.layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.read = nn.Linear(width, classes)

    def forward(self, codes: Tensor) -> Tensor:
        return self.read(self.layer(self.token(codes) + self.place).mean(1))


def side_by_side(k: int, dim: int, classes: int) -> nn.Module:
    """codes (B, k, d) -> scores (B, classes): the perceptron of a single time on all numbers."""
    return perceptron(k * dim, classes)


def mean(codes: Tensor) -> Tensor:
    """(N, k, d) -> (N, 1, d)."""
    return codes.mean(1, keepdim=True)


def all_of(codes: Tensor) -> Tensor:
    """(N, k, d), as they are."""
    return codes


# way of combining -> a function of the codes, and the network on its result
WAYS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[int, int, int], nn.Module]]] = {
    "mean": (mean, side_by_side),
    "concat": (all_of, side_by_side),
    "gru": (all_of, lambda k, dim, classes: Recurrent(dim, classes)),
    "transformer": (all_of, Attending),
}


def combined(way: str, splits: TimedSplits, epochs: int = 100, seeds: int = 1, progress: Progress = silent) -> Score:
    """A network of this way, fitted `seeds` times: mean accuracy on test and its error, and on validation.

    Codes are standardised by the training split. se: of the share of test examples, each of which is right in a share
    of the fits; `spread`: the standard deviation between the fits.
    """
    keep, build = WAYS[way]
    first, second, third = ((keep(codes), y) for codes, y in splits)
    train, valid, test = standardised((first, second, third))
    (_, k, dim), classes = train[0].shape, int(train[1].max()) + 1
    steps = epochs * math.ceil(len(train[1]) / BATCH)
    right, chosen = [], []
    for seed in range(seeds):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build(k, dim, classes).to(train[0].device)
        groups = [{"params": list(network.parameters()), "lr": RATE}]
        count = counting(f"{way} of {k}, {seed + 1} of {seeds}", steps, progress)
        loss = cross_entropy(network, train, BATCH, seed)
        chosen.append(fit(network, loss, valid, groups, Stopping(steps, epochs, PATIENCE), seed, count).valid_accuracy)
        right.append((predicted(network, test[0]) == test[1]).double())
    scores = torch.stack(right)
    share = scores.mean(0)
    return {
        "accuracy": float(share.mean()),
        "se": error_of_share(float(share.mean()), len(share), float(share.var(correction=0))),
        "spread": float(scores.mean(1).std()) if seeds > 1 else None,
        "valid_accuracy": sum(chosen) / seeds,
    }


def combined_linear(way: str, splits: TimedSplits, most: int = 20_000) -> Score:
    """The linear probe on codes combined this way: accuracy and error on test, accuracy on validation."""
    keep, _ = WAYS[way]
    train, valid, test = ((keep(codes).flatten(1).cpu().numpy(), y.cpu().numpy()) for codes, y in splits)
    result = linear.linear(train, valid, test, most)
    return {
        "accuracy": result["accuracy"],
        "se": result["se"],
        "spread": None,
        "valid_accuracy": linear.linear(train, valid, valid, most)["accuracy"],
    }


def standardised(splits: TimedSplits) -> TimedSplits:
    """Every number of the codes less its mean over the training split, by its standard deviation there (one if 0)."""
    centre, scale = splits[0][0].mean(0), splits[0][0].std(0, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    train, valid, test = (((codes - centre) / scale, y) for codes, y in splits)
    return train, valid, test
