"""An encoder and a linear head trained on few labels, starting from the frozen probe."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from diffrep.errors import UserError
from diffrep.models.base import Model
from diffrep.probes.few_labels import regression, scaling, scores_of
from diffrep.probes.fitting import Labelled, cross_entropy, descend
from diffrep.shapes import CodeVector, Data

PROTOCOL = "finetune-2"  # head of few-labels-1; Adam, 3e-4 for the encoder, 1e-3 for the head; nothing chosen
RATE, HEAD_RATE, BATCH, STEPS = 3e-4, 1e-3, 64, 300


class CodeOf(nn.Module):
    """x (B, *shape) -> the mean of its code (B, d), differentiable: the encoder of a model, at one log-SNR."""

    def __init__(self, posterior: nn.Module, log_snr: float | None):
        super().__init__()
        self.posterior, self.log_snr = posterior, log_snr

    def forward(self, x: Data) -> CodeVector:
        first = x.flatten(1)[:, 0]  # (B,), where len() would fix the batch of an export
        return self.posterior(x, None if self.log_snr is None else torch.full_like(first, self.log_snr)).mean


def encoder_of(model: Model, t: float | None = None) -> CodeOf:
    """The encoder of a model, its own weights; t: as in `Model.encode`. UserError where there is none."""
    if model.posterior is None:
        raise UserError("this method has no encoder to fine-tune; train one that has (`diffrep methods` lists them).")
    with torch.no_grad():
        log_snr = model.code_log_snr(t, 1, next(model.parameters()).device)
    return CodeOf(model.posterior, None if log_snr is None else float(log_snr))


class Classifier(nn.Module):
    """x -> scores (B, classes): a linear head on codes, minus `centre` (d,), divided by `scale`, one number."""

    centre: Tensor
    scale: Tensor

    def __init__(self, encoder: nn.Module, centre: Tensor, scale: Tensor, head: nn.Linear):
        super().__init__()
        self.encoder, self.head = encoder, head
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)

    def forward(self, x: Data) -> Tensor:
        return self.head((self.encoder(x) - self.centre) / self.scale)


def frozen(encoder: nn.Module, few: Labelled, every: Tensor) -> Classifier:
    """The probe of `diffrep.probes.few_labels` as a network, on a copy of the encoder with all weights trainable.

    few: the labelled examples x (n, *shape) and their classes. every (N, *shape): all training examples, whose codes
    give centre and scale; their labels are not needed. UserError: fewer than two classes.
    """
    if len(few[1].unique()) < 2:
        raise UserError(f"expected labels of two classes at least, got {len(few[1].unique())}; give more.")
    encoder, device = copy.deepcopy(encoder).eval().requires_grad_(True), few[0].device
    centre, scale = scaling(codes(encoder, every))
    z, y = (codes(encoder, few[0]) - centre) / scale, few[1].cpu().numpy()
    weight, bias = scores_of(regression(z, y))
    head = nn.Linear(z.shape[1], int(y.max()) + 1)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-1e4)  # a class without an example is never predicted
        head.weight[np.unique(y)] = torch.from_numpy(weight).float()
        head.bias[np.unique(y)] = torch.from_numpy(bias).float()
    return Classifier(encoder, torch.from_numpy(centre).float(), torch.tensor(scale).float(), head).to(device)


def finetune(
    encoder: nn.Module,
    few: Labelled,
    every: Tensor,
    rate: float = RATE,
    steps: int = STEPS,
    seed: int = 0,
    progress: Callable[[int], None] = lambda steps: None,
) -> Classifier:
    """The frozen probe, then encoder and head trained together (LP-FT, Kumar et al. 2022, 2202.10054), on a copy.

    few, every: as of `frozen`. rate: of the encoder. Nothing is chosen on validation: the validation split
    holds more labels than the few, so a result chosen by it would not be one of few labels.
    """
    classifier = frozen(encoder, few, every)
    loss = cross_entropy(classifier, few, BATCH, seed)
    descend(classifier, loss, groups_of(classifier, rate), steps, seed, progress)
    return classifier


def groups_of(classifier: Classifier, rate: float) -> list[dict]:
    """Parameter groups: the encoder with learning rate `rate`, the head with its own."""
    encoder, head = ([*module.parameters()] for module in (classifier.encoder, classifier.head))
    return [{"params": encoder, "lr": rate}, {"params": head, "lr": HEAD_RATE}]


@torch.no_grad()
def codes(encoder: nn.Module, x: Tensor, batch: int = 500) -> np.ndarray:
    """(N, d) float64 codes of x (N, *shape) by an encoder in evaluation mode."""
    was_training = encoder.training
    encoder.eval()
    outputs = torch.cat([encoder(chunk) for chunk in x.split(batch)]).double().cpu().numpy()
    encoder.train(was_training)
    return outputs
