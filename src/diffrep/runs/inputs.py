"""What a trained run is given: other data, single examples, codes; each checked against what it was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from diffrep import data
from diffrep.data import Examples
from diffrep.errors import UserError
from diffrep.runs.directory import form
from diffrep.runs.run import Run


def examples_of(run: Run, source: str, skip_bad: bool = False) -> Examples:
    """All examples of a source, prepared as the run's data was; UserError where their shape is another."""
    examples = data.whole(source, skip_bad=skip_bad, scaling=run.scaling())
    if (examples.shape, examples.bins) != (run.card.shape, run.card.bins):
        raise UserError(
            f"{run.directory} was trained on {form(run.card.shape, run.card.bins)} data and {source} is"
            f" {form(examples.shape, examples.bins)}; pick data of the same shape and levels."
        )
    if examples.prepared != run.card.prepared:
        raise UserError(
            f"{run.directory} was trained on a table ({run.card.prepared or 'plain numbers'}) and {source} is another"
            f" kind ({examples.prepared or 'plain numbers'}); give a table like the one it was trained on."
        )
    return examples


def one_example(run: Run, end: str) -> Tensor:
    """An example of a picture file, or of a position in the test split; *shape."""
    if not end.lstrip("-").isdigit():
        return examples_of(run, end).batch(torch.tensor([0])).x[0]
    test, position = run.splits().test, int(end)
    if not 0 <= position < len(test):
        raise UserError(f"the test split has positions 0 to {len(test) - 1}, got {position}.")
    return test.batch(torch.tensor([position])).x[0]
