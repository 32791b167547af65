"""The probe with one hidden layer."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from diffrep.probes.linear import Part, Result, accuracy, labelled, standardised

MLP = "mlp-1"  # P2F's network; standardised by train; Adam 1e-3, batches of 256; the epoch chosen on validation
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
    classes, y = np.unique(train[1], return_inverse=True)
    x, target = torch.from_numpy(train[0]).float(), torch.from_numpy(y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, len(classes))
        )
        optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
        highest, chosen, weights = -1.0, 0, network.state_dict()
        for epoch in range(1, epochs + 1):
            for rows in torch.randperm(len(x)).split(BATCH):  # the last batch is as small as it comes
                optimiser.zero_grad()
                F.cross_entropy(network(x[rows]), target[rows]).backward()
                optimiser.step()
            score = float((_predict(network, classes, valid[0]) == valid[1]).mean())
            if score > highest:
                highest, chosen, weights = score, epoch, copy.deepcopy(network.state_dict())
            if highest == 1 or epoch - chosen >= patience:
                break
        network.load_state_dict(weights)
    return accuracy(_predict(network, classes, test[0]), test[1], len(x), MLP, epoch=chosen, seed=seed)


@torch.no_grad()
def _predict(network: nn.Module, classes: np.ndarray, features: np.ndarray) -> np.ndarray:
    network.eval()
    places = [network(chunk).argmax(1) for chunk in torch.from_numpy(features).float().split(10_000)]
    network.train()
    return classes[torch.cat(places).numpy()]
