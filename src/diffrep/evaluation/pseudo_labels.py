"""Training on a few labels and on pseudo-labels that a graph of codes gives to all other examples."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffrep.evaluation.finetune import RATE, STEPS, Classifier, codes, groups_of
from diffrep.probes.fitting import Labelled, descend, shuffled
from diffrep.probes.neighbours import neighbour_graph, spread_labels
from diffrep.shapes import mix

PROTOCOL = "pseudo-labels-2"  # from fine-tuning; 10 neighbours by cosine, alpha 0.99; 5 rounds; nothing chosen
ROUNDS = 5
LABELLED, UNLABELLED = 50, 250  # examples of a step


def balanced(p: np.ndarray, share: np.ndarray, rounds: int = 100, most: float = 0.01) -> np.ndarray:
    """Probabilities (N, classes), reweighted until about a share of share[c] of the examples has c as its likeliest
    class.

    In each of `rounds`, each class is multiplied by its wanted share / its share now, within 1 +- `most` (LaplaceNet).
    """
    p = p.copy()
    for _ in range(rounds):
        now = np.bincount(p.argmax(1), minlength=len(share)) / len(p)
        p *= np.clip(share / np.maximum(now, 1e-9), 1 - most, 1 + most)
        p /= p.sum(1, keepdims=True)
    return p


def pseudo_labels(features: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Of features (N, d) and labels (N,), -1 where there is none: the class of each example, and its weight.

    Labels spread over the graph of neighbours weighed by their cosine, as in LaplaceNet (Sellars et al. 2021,
    2106.04527; it has 50 neighbours for 50,000 examples). A given label stays, with weight 1. The others have the class
    shares of the given ones; their weight is 1 - entropy / log(classes) of the scores of the graph, 0 where no label
    reaches, divided by the mean of these weights: near alpha = 1 all scores of a connected graph are nearly equal, so
    only differences in certainty are informative.
    """
    labelled = labels >= 0
    seeds = np.eye(classes)[labels] * labelled[:, None]
    scores = np.maximum(spread_labels(neighbour_graph(features, weighed=True), seeds), 0)
    scores[scores.sum(1) == 0] = 1.0  # no label reaches these
    p = scores / scores.sum(1, keepdims=True)
    share = np.bincount(labels[labelled], minlength=classes) / labelled.sum()
    if not labelled.all():
        p[~labelled] = balanced(p[~labelled], share)
    p[labelled] = np.eye(classes)[labels[labelled]]
    certain = np.maximum(1 + (p * np.log(np.maximum(p, 1e-300))).sum(1) / np.log(classes), 0)
    mean = certain[~labelled].mean() if not labelled.all() else 1.0
    return p.argmax(1), np.where(labelled, 1.0, certain / max(mean, 1e-9))


def train(
    start: Classifier,
    few: Labelled,
    unlabelled: Tensor,
    rate: float = RATE,
    rounds: int = ROUNDS,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[int], None] = lambda steps: None,
) -> Classifier:
    """From a fine-tuned classifier, in rounds: codes, their graph, pseudo-labels, then steps on both kinds of label.

    few: the labelled examples; unlabelled (N, *shape): the others. rate: of the encoder. `start` does not
    change, and nothing is chosen on validation, as in `finetune`.
    """
    x, y = few
    every = torch.cat([x, unlabelled])
    labels = np.concatenate([y.cpu().numpy(), np.full(len(unlabelled), -1)])
    classifier = copy.deepcopy(start)
    for number in range(rounds):
        z = codes(classifier.encoder, every)
        z = (z - z.mean(0)) / np.maximum(z.std(0), 1e-9)
        guess, weight = pseudo_labels(z, labels, classifier.head.out_features)
        guessed = (every, torch.from_numpy(guess).to(y), torch.from_numpy(weight).float().to(x.device))
        loss = composite(classifier, few, guessed, mix(seed, number))
        descend(classifier, loss, groups_of(classifier, rate), steps, mix(seed, number), progress)
    return classifier


def composite(
    classifier: nn.Module, few: Labelled, guessed: tuple[Tensor, Tensor, Tensor], seed: int
) -> Callable[[], Tensor]:
    """Cross-entropy of the next labelled examples, plus that of the next pseudo-labelled ones times their weights."""
    (x, y), (x_all, y_all, weight) = few, guessed
    generator = torch.Generator().manual_seed(seed)
    labelled, others = shuffled(len(y), LABELLED, generator), shuffled(len(y_all), UNLABELLED, generator)

    def loss() -> Tensor:
        a, b = next(labelled).to(x.device), next(others).to(x.device)
        scores = classifier(torch.cat([x[a], x_all[b]]))
        supervised = F.cross_entropy(scores[: len(a)], y[a])
        return supervised + (weight[b] * F.cross_entropy(scores[len(a) :], y_all[b], reduction="none")).mean()

    return loss
