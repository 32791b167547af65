"""Fitting by gradient steps: where it stops is decided on validation, and nothing else moves."""

import pytest
import torch
from torch import nn

from diffrep.errors import UserError
from diffrep.probes.fitting import Stopping, accuracy, cross_entropy, fit, predicted, shuffled


class Cycling(nn.Module):
    """Its parameter grows by one a step (Adam on a loss of slope -1 at rate one); it is right on validation at 3."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        right = (self.at.round() == 3).float()
        return torch.stack([1 - right, right]).expand(len(x), 2)


def run(steps: int = 6, checks: int = 6, patience: int | None = None):
    model, told = Cycling(), []
    valid = (torch.zeros(4, 1), torch.ones(4, dtype=torch.int64))
    groups = [{"params": [model.at], "lr": 1.0}]
    return model, fit(model, lambda: -model.at, valid, groups, Stopping(steps, checks, patience), 0, told.append), told


def test_the_weights_of_the_best_look_are_kept():
    """Six steps pass the only good place, at three: that step is named, and its weights are what is left."""
    model, fitted, told = run()
    assert (fitted.step, fitted.valid_accuracy, len(told)) == (3, 1.0, 6)
    assert float(model.at.detach()) == pytest.approx(3, abs=1e-4)


def test_where_no_look_is_better_nothing_changes():
    """The start is a candidate: two looks, after steps 2 and 4, miss the good place."""
    model, fitted, _ = run(4, 2)
    assert (fitted.step, float(model.at.detach())) == (0, 0.0)


def test_patience_ends_a_fit():
    """After step 3 two looks bring nothing better."""
    _, fitted, told = run(50, 50, patience=3)
    assert fitted.step == 3 and len(told) == 6
    assert len(run(50, 50, patience=2)[2]) == 2


def test_a_fit_depends_on_its_seed_alone():
    """Dropout draws from the seed whatever came before, and leaves the global generator as it was."""
    x, y = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 2

    def weights(seed: int, before: int) -> torch.Tensor:
        torch.manual_seed(7)
        model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        torch.manual_seed(before)
        groups = [{"params": list(model.parameters()), "lr": 0.01}]
        fit(model, cross_entropy(model, (x, y), 16, seed), (x, y), groups, Stopping(20, 20), seed)
        assert torch.initial_seed() == before and torch.equal(torch.rand(3), rand(before))
        return model[0].weight.detach()

    assert torch.equal(weights(1, 2), weights(1, 3)) and not torch.equal(weights(1, 2), weights(2, 2))


def rand(seed: int) -> torch.Tensor:
    return torch.rand(3, generator=torch.Generator().manual_seed(seed))


def test_each_pass_has_every_position_once():
    """An epoch is an epoch: the last batch is as small as it comes, and orders differ."""
    batches = shuffled(10, 4, torch.Generator().manual_seed(0))
    passes = [[next(batches) for _ in range(3)] for _ in range(2)]
    assert [len(b) for b in passes[0]] == [4, 4, 2]
    orders = [torch.cat(p) for p in passes]
    assert all(torch.equal(o.sort().values, torch.arange(10)) for o in orders) and not torch.equal(*orders)


def test_cross_entropy_is_that_of_the_batch():
    """Equal scores over four classes cost log 4 nats."""
    model = nn.Linear(3, 4)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    loss = cross_entropy(model, (torch.randn(8, 3), torch.arange(8) % 4), 8, 0)
    assert float(loss().detach()) == pytest.approx(1.3862944)


def test_accuracy_counts_and_the_mode_comes_back():
    """Two of three are right; dropout is off while it is counted, and on again after."""
    model = nn.Sequential(nn.Dropout(0.9)).train()
    x = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
    assert predicted(model, x, batch=2).tolist() == [0, 1, 0] and model.training
    assert accuracy(model, (x, torch.tensor([0, 1, 1]))) == pytest.approx(2 / 3)


def test_nothing_to_choose_by_is_said():
    """An empty validation split would make every step the best."""
    with pytest.raises(UserError, match="larger share"):
        fit(
            Cycling(),
            lambda: torch.zeros(()),
            (torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)),
            [],
            Stopping(1, 1),
            0,
        )
