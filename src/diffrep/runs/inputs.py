"""Inputs of a trained run: other data, single examples; read as the run's data was, and checked against it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffrep import data
from diffrep.codes.posteriors import Code
from diffrep.data import Examples
from diffrep.errors import UserError
from diffrep.evaluation.encoding import encoded
from diffrep.models.base import evaluating
from diffrep.runs.card import form
from diffrep.runs.run import Run
from diffrep.shapes import Batch

SLACK = 1e-3  # by which values of a tensor may lie outside of [-1, 1]
FAR = 10  # standard deviations: of the training examples at most 1 % lie further from a mean (Chebyshev)


def examples_of(run: Run, source: Any, skip_bad: bool = False) -> Examples:
    """All examples of a source, read as the run's data was; UserError where that does not fit. Doubts
    about the reading are warnings."""
    how = run.card.how()
    if run.card.reading is None:
        how = replace(how, label=run.settings.data.label_column)
    examples = data.whole(source, skip_bad=skip_bad, reading=how)
    if (examples.shape, examples.bins) != (run.card.shape, run.card.bins):
        raise UserError(
            f"{run.directory} was trained on {form(run.card.shape, run.card.bins)} data and {examples.name} is"
            f" {form(examples.shape, examples.bins)}; pick data of the same shape and grey levels."
        )
    if examples.prepared != run.card.prepared:
        raise UserError(
            f"{run.directory} was trained on a table ({run.card.prepared or 'plain numbers'}) and {examples.name} is"
            f" another kind ({examples.prepared or 'plain numbers'}); give a table like the one it was trained on."
        )
    for sentence in examples.reading.doubts():
        warnings.warn(sentence, stacklevel=2)
    return examples


def batch_of(run: Run, x: Any) -> Batch:
    """All of the raw examples on the run's device; a tensor of floats is x itself. UserError: no fit."""
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        examples = examples_of(run, x)
        return examples.batch(torch.arange(len(examples))).to(run.device)
    if tuple(x.shape[1:]) != run.card.shape:
        raise UserError(
            f"a tensor of shape {tuple(x.shape)} was given, expected {run.card.shape} for each example: reshape it."
        )
    if not x.isfinite().all():
        raise UserError("the tensor holds NaN or infinite values: remove or fill them.")
    if run.card.scaling is None and x.numel() and x.abs().max() > 1 + SLACK:
        raise UserError(
            f"the tensor holds values from {float(x.min()):.4g} to {float(x.max()):.4g} and a tensor of floats is taken"
            " for x itself, in [-1, 1]: give raw values as a NumPy array or as whole numbers."
        )
    if run.card.scaling is not None and len(x) and ((x.abs() > FAR).double().mean(0) > 0.5).any():
        warnings.warn(
            f"most values of a column lie more than {FAR} standard deviations from its mean, and a tensor of floats is"
            " taken for x itself, standardised: give raw values as a NumPy array or a data frame.",
            stacklevel=2,
        )
    return Batch(x.float(), torch.arange(len(x))).to(run.device)


@torch.no_grad()
def codes_of(run: Run, x: Any, t: float | None = None) -> Code:
    """The codes of raw examples, see `Run.encode`."""
    whole = batch_of(run, x).x
    run.model.need_code(t)
    if not len(whole):
        raise UserError("there is no example to encode; give one at least.")
    with evaluating(run.model):
        return encoded(run.model, whole, t)


def one_example(run: Run, end: str) -> Batch:
    """An example of a picture file, or of a position in the test split."""
    if not end.lstrip("-").isdigit():
        return examples_of(run, end).batch(torch.tensor([0]))
    test, position = run.splits().test, int(end)
    if not 0 <= position < len(test):
        raise UserError(f"the test split has positions 0 to {len(test) - 1}, got {position}.")
    return test.batch(torch.tensor([position]))
