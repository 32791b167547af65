"""BYOL: its loss by hand, a target that no gradient reaches, and how fast it follows."""

import torch
from torch import nn
from torch.nn import functional as F

from diffrep.codes.posteriors import Deterministic
from diffrep.data.views import noisy
from diffrep.models.bootstrap import Bootstrap
from diffrep.nets.encoders import MLPEncoder
from diffrep.shapes import Batch, Draws


def made(decay: float = 0.9) -> Bootstrap:
    torch.manual_seed(0)
    posterior = Deterministic(MLPEncoder((6,), 16, 1), 4)
    return Bootstrap((6,), None, posterior, nn.Linear(4, 8), nn.Linear(8, 8), noisy(0.3), decay)


def moved(model: Bootstrap) -> Bootstrap:
    """Away from its target, which is a copy at first."""
    with torch.no_grad():
        for module in (model.posterior, model.head):
            for p in module.parameters():
                p.add_(0.1 * torch.randn(p.shape))
    return model


def test_the_loss_is_the_distance_of_unit_vectors_both_ways():
    """Each view's prediction against the slow network's word on the other, from the same draws."""
    model, x, draws = moved(made()), torch.randn(5, 6), Draws.of(3)
    a, b = (x + 0.3 * draws.normal(5, 6) for _ in range(2))
    expected = torch.zeros(5)
    for seen, other in ((a, b), (b, a)):
        said = model.predictor(model.head(model.posterior(seen).mean))
        target = model.slow_head.copy(model.slow_posterior.copy(other).mean)
        expected = expected + ((F.normalize(said, dim=1) - F.normalize(target, dim=1)) ** 2).sum(1)
    found = model.loss(Batch(x, torch.arange(5), draws=Draws.of(3)))["bootstrap"]
    torch.testing.assert_close(found, expected)
    halves = [
        model.loss(Batch(x[2 * k : 2 * k + 2], torch.arange(2), draws=Draws.of(3, shard=k, shards=2)))["bootstrap"]
        for k in range(2)
    ]
    whole = model.loss(Batch(x[:4], torch.arange(4), draws=Draws.of(3)))["bootstrap"]
    torch.testing.assert_close(torch.cat(halves), whole)


def test_the_target_follows_and_is_not_trained():
    """After n steps the gap to weights that stand still is decay^n of what it was; they have no gradient."""
    model = moved(made(decay=0.9))
    sum(model.loss(Batch(torch.randn(5, 6), torch.arange(5), draws=Draws.of(0))).values()).sum().backward()
    slow = [*model.slow_posterior.parameters(), *model.slow_head.parameters()]
    lead = [*model.posterior.parameters(), *model.head.parameters()]
    owned = {id(p) for group in model.players()["model"].values() for p in group}
    assert all(p.grad is None and id(p) not in owned for p in slow)
    assert owned == {id(p) for p in [*lead, *model.predictor.parameters()]}
    before = [(s - p).detach() for s, p in zip(slow, lead, strict=True)]
    for _ in range(5):
        model.advance()
    for gap, s, p in zip(before, slow, lead, strict=True):
        torch.testing.assert_close(s - p, 0.9**5 * gap, atol=1e-6, rtol=1e-4)
