"""An encoder and a linear head trained on few labels, from the frozen probe on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from diffrep.errors import UserError
from diffrep.models.base import Model
from diffrep.models.diffusion import DiffusionModel
from diffrep.probes.fitting import Labelled, cross_entropy, fit
from diffrep.probes.linear import logistic
from diffrep.shapes import CodeVector, Data

PROTOCOL = "finetune-1"  # head from the frozen probe; Adam 1e-3 on it; encoder's rate and the step by validation
RATES = (1e-4, 3e-4, 1e-3)  # of the encoder
HEAD_RATE, BATCH, STEPS, CHECKS = 1e-3, 64, 300, 10


class CodeOf(nn.Module):
    """x (B, *shape) -> the mean of its code (B, d), differentiable: the encoder of a model, at one log-SNR."""

    def __init__(self, posterior: nn.Module, log_snr: float | None):
        super().__init__()
        self.posterior, self.log_snr = posterior, log_snr

    def forward(self, x: Data) -> CodeVector:
        if self.log_snr is None:
            return self.posterior(x).mean
        return self.posterior(x, torch.full((len(x),), self.log_snr, device=x.device)).mean


def encoder_of(model: Model, t: float = 0.5) -> CodeOf:
    """The encoder of a model, its own weights; t for a time-conditioned code. UserError where there is none."""
    posterior = getattr(model, "posterior", None)
    if posterior is None:
        raise UserError("this method has no encoder to fine-tune; train one that has (`diffrep methods` lists them).")
    if not model.timed:
        return CodeOf(posterior, None)
    noise = cast(DiffusionModel, model).noise
    with torch.no_grad():
        return CodeOf(posterior, float(noise.log_snr(torch.tensor([t], device=next(model.parameters()).device))))


class Classifier(nn.Module):
    """x -> scores (B, classes): a linear head on codes, standardised with centre and scale (d,)."""

    centre: Tensor
    scale: Tensor

    def __init__(self, encoder: nn.Module, centre: Tensor, scale: Tensor, head: nn.Linear):
        super().__init__()
        self.encoder, self.head = encoder, head
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)

    def forward(self, x: Data) -> Tensor:
        return self.head((self.encoder(x) - self.centre) / self.scale)


@dataclass(frozen=True)
class Tuned:
    """A classifier, the learning rate of its encoder and the step that were best on validation, and how good."""

    classifier: Classifier
    rate: float
    step: int
    valid_accuracy: float


def frozen(encoder: nn.Module, train: Labelled, valid: Labelled) -> Classifier:
    """The linear probe as a network, on a copy of the encoder, all of it to be trained.

    UserError where training has one class, or validation no example.
    """
    from sklearn.preprocessing import StandardScaler

    if len(train[1].unique()) < 2 or not len(valid[1]):
        raise UserError(
            f"expected labels of two classes in the training split and some in the validation split, got "
            f"{len(train[1].unique())} and {len(valid[1])} examples; give more."
        )
    encoder, device = copy.deepcopy(encoder).eval().requires_grad_(True), train[0].device
    z, z_valid = (codes(encoder, x) for x, _ in (train, valid))
    y, y_valid = (part[1].cpu().numpy() for part in (train, valid))
    scaler = StandardScaler().fit(z)
    _, best = logistic((scaler.transform(z), y), (scaler.transform(z_valid), y_valid))
    weight, bias = best.coef_, best.intercept_
    if len(best.classes_) == 2:  # scikit-learn keeps the second score alone
        weight, bias = np.vstack([0 * weight, weight]), np.concatenate([0 * bias, bias])
    head = nn.Linear(z.shape[1], int(y.max()) + 1)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-1e4)  # a class without an example is never said
        head.weight[best.classes_] = torch.from_numpy(weight).float()
        head.bias[best.classes_] = torch.from_numpy(bias).float()
    centre, scale = (torch.from_numpy(values).float() for values in (scaler.mean_, scaler.scale_))
    return Classifier(encoder, centre, scale, head).to(device)


def finetune(
    encoder: nn.Module,
    train: Labelled,
    valid: Labelled,
    rates: Sequence[float] = RATES,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[int], None] = lambda steps: None,
) -> Tuned:
    """The frozen probe, then encoder and head trained together (LP-FT, Kumar et al. 2022, 2202.10054), on a copy.

    train: the few labelled examples x (n, *shape), and their classes. The rate of the encoder and the step are chosen
    on `valid`; the probe that it starts from is a candidate. No test split comes in here: see `fitting.accuracy`.
    """
    start = frozen(encoder, train, valid)
    tuned = []
    for rate in rates:
        classifier = copy.deepcopy(start)
        loss = cross_entropy(classifier, train, BATCH, seed)
        chosen = fit(classifier, loss, valid, groups_of(classifier, rate), steps, CHECKS, seed, progress)
        tuned.append(Tuned(classifier, rate, chosen.step, chosen.valid_accuracy))
    return max(tuned, key=lambda one: one.valid_accuracy)


def groups_of(classifier: Classifier, rate: float) -> list[dict]:
    """What is trained: the encoder at `rate`, the head at its own."""
    encoder, head = ([p for p in part.parameters()] for part in (classifier.encoder, classifier.head))
    return [{"params": encoder, "lr": rate}, {"params": head, "lr": HEAD_RATE}]


@torch.no_grad()
def codes(encoder: nn.Module, x: Tensor, batch: int = 500) -> np.ndarray:
    """(N, d) float64 what an encoder says of x (N, *shape), in evaluation mode."""
    was_training = encoder.training
    encoder.eval()
    said = torch.cat([encoder(part) for part in x.split(batch)]).double().cpu().numpy()
    encoder.train(was_training)
    return said
