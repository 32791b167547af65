"""The probe with one hidden layer."""

from __future__ import annotations

import math
from threading import Lock

import numpy as np
import torch
from torch import nn

from diffrep.probes.fitting import Labelled, Stopping, cross_entropy, fit
from diffrep.probes.linear import labelled, standardised
from diffrep.probes.result import Result, Split, accuracy, quiet
from diffrep.progress import Part, part_of, unsaid

MLP = "mlp-2"  # P2F's network; standardised by train; Adam 1e-3, batches of 256; the epoch chosen on validation
HIDDEN, DROPOUT, BATCH, RATE = 512, 0.25, 256, 1e-3
TURN = Lock()  # of the fits of all threads: torch has one random generator for first weights and dropout


@quiet
def mlp(
    train: Split,
    valid: Split,
    test: Split,
    most: int = 50_000,
    epochs: int = 100,
    patience: int = 20,
    seed: int = 0,
    tell: Part = unsaid,
) -> Result:
    """Features -> 512 units, dropout 1/4 -> classes, after the epoch that was best on validation (Mittal et al. 2022).

    At most `epochs`, and at most `patience` of them without a better one; the first of the best is kept. The test split
    is used once, whole, after that. seed: of weights, batches and dropout. Otherwise as `linear`.
    """
    train, valid, test = standardised(*labelled(train, valid, test, most))
    classes = np.unique(train[1])
    train_, valid_, test_ = (_tensors(split, classes) for split in (train, valid, test))
    each = math.ceil(len(train_[1]) / BATCH)  # steps of an epoch
    stopping = Stopping(each * epochs, epochs, patience)
    with TURN:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = perceptron(train_[0].shape[1], len(classes))
        groups = [{"params": list(network.parameters()), "lr": RATE}]
        loss = cross_entropy(network, train_, BATCH, seed)
        chosen = fit(network, loss, valid_, groups, stopping, seed, part_of(stopping.steps, tell))
    network.eval()
    with torch.no_grad():
        scores = torch.cat([network(part) for part in test_[0].split(10_000)]).numpy()
    return accuracy(
        classes[scores.argmax(1)],
        test[1],
        len(train_[1]),
        MLP,
        {"epoch": chosen.step // each, "seed": seed},
        scores,
        classes,
    )


def perceptron(inputs: int, classes: int) -> nn.Sequential:
    """(B, ...) of so many numbers -> scores (B, classes): one hidden layer, with dropout (P2F)."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, classes)
    )


def _tensors(split: Split, classes: np.ndarray) -> Labelled:
    """Features, and each label as its place among the classes; -1 for a class that training does not have."""
    place = np.searchsorted(classes, split[1]).clip(max=len(classes) - 1)
    return torch.from_numpy(split[0]).float(), torch.from_numpy(np.where(classes[place] == split[1], place, -1))
