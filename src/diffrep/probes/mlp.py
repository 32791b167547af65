"""The probe with one hidden layer."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from diffrep.probes.fitting import Labelled, Stopping, cross_entropy, fit, predicted
from diffrep.probes.linear import labelled, standardised
from diffrep.probes.result import Part, Result, accuracy

MLP = "mlp-2"  # P2F's network; standardised by train; Adam 1e-3, batches of 256; the epoch chosen on validation
HIDDEN, DROPOUT, BATCH, RATE = 512, 0.25, 256, 1e-3


def mlp(
    train: Part,
    valid: Part,
    test: Part,
    most: int = 50_000,
    epochs: int = 100,
    patience: int = 20,
    seed: int = 0,
) -> Result:
    """Features -> 512 units, dropout 1/4 -> classes, after the epoch that was best on validation (Mittal et al. 2022).

    At most `epochs`, and no more than `patience` without a better one; the first of the best is kept. The test split
    is used once, whole, after that. seed: of weights, batches and dropout. Otherwise as `linear`.
    """
    train, valid, test = standardised(*labelled(train, valid, test, most))
    classes = np.unique(train[1])
    fitted, judged, asked = (_tensors(part, classes) for part in (train, valid, test))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = perceptron(fitted[0].shape[1], len(classes))
    groups = [{"params": list(network.parameters()), "lr": RATE}]
    each = math.ceil(len(fitted[1]) / BATCH)  # steps of an epoch
    loss = cross_entropy(network, fitted, BATCH, seed)
    chosen = fit(network, loss, judged, groups, Stopping(each * epochs, epochs, patience), seed)
    right = predicted(network, asked[0], 10_000) == asked[1]
    return accuracy(
        right.numpy(), np.ones(len(right), bool), len(fitted[1]), MLP, {"epoch": chosen.step // each, "seed": seed}
    )


def perceptron(inputs: int, classes: int) -> nn.Sequential:
    """(B, ...) of so many numbers -> scores (B, classes): one hidden layer, with dropout (P2F)."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, classes)
    )


def _tensors(part: Part, classes: np.ndarray) -> Labelled:
    """Features, and each label as its place among the classes; -1 for one that training does not have."""
    place = np.searchsorted(classes, part[1]).clip(max=len(classes) - 1)
    return torch.from_numpy(part[0]).float(), torch.from_numpy(np.where(classes[place] == part[1], place, -1))
