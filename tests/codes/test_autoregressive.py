"""A prior over categorical variables that depend on each other: a distribution, its samples, and what it saves."""

from itertools import product

import pytest
import torch
from torch import nn

from diffrep.codes.autoregressive import Autoregressive
from diffrep.codes.posteriors import Code, OneHot
from diffrep.codes.priors import Categories
from diffrep.config import Settings, override
from diffrep.errors import UserError
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.shapes import Batch, Draws
from small import NARROW

pytestmark = pytest.mark.slow


def codes(variables: int, classes: int) -> torch.Tensor:
    """Every code there is, (classes^variables, variables classes)."""
    words = torch.tensor([*product(range(classes), repeat=variables)])
    return nn.functional.one_hot(words, classes).flatten(1).float()


def strong(variables: int, classes: int) -> Autoregressive:
    """One whose variables depend on each other much."""
    torch.manual_seed(0)
    prior = Autoregressive(variables, classes, width=8)
    for parameter in prior.parameters():
        nn.init.normal_(parameter)
    return prior


def code(q: torch.Tensor, classes: int) -> Code:
    return Code(q, (q * (1 - q)).sqrt(), OneHot(classes))


@pytest.mark.parametrize("variables, classes", [(1, 4), (3, 3), (4, 2)])
def test_it_sums_to_one(variables, classes):
    """Over all codes; a variable that saw itself or a later one would break it."""
    every = codes(variables, classes)
    total = strong(variables, classes).log_prob(every).exp().sum()
    assert float(total.detach()) == pytest.approx(1, abs=1e-5)


def test_the_last_variable_hears_the_first():
    """Every variable before counts, not the nearest alone."""
    prior, every = strong(3, 3), codes(3, 3)
    with torch.no_grad():
        last = prior.log_probabilities(every)[:, 6:].unflatten(0, (3, 3, 3))[:, 0, 0]  # by the first variable
    assert (last[0] - last[1]).abs().max() > 0.1


def test_without_weights_it_is_the_independent_prior():
    """With no weight from variable to variable, the scores are biases: the same log p and the same rate."""
    prior, plain = strong(3, 3), Categories(3, 3)
    nn.init.zeros_(prior.outer.weight)
    plain.scores.data.copy_(prior.outer.bias.data.view(3, 3))
    every = codes(3, 3)
    torch.testing.assert_close(prior.log_prob(every), plain.log_prob(every))
    q = torch.softmax(torch.randn(5, 3, 3), -1).flatten(1)
    torch.testing.assert_close(prior.rate(code(q, 3), every[:5]), plain.rate(code(q, 3), every[:5]))


def test_samples_come_as_often_as_it_says():
    """Frequencies of all 8 codes among 20,000 samples, within 4 standard errors of exp(log_prob)."""
    prior, every = strong(3, 2), codes(3, 2)
    drawn = prior.sample(20_000, Draws.of(0))
    seen = (drawn @ every.T == 3).float().mean(0)
    p = prior.log_prob(every).exp().detach()
    assert ((seen - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt() + 1e-6).all()
    assert float(seen.sum()) == pytest.approx(1)


def test_the_rate_is_unbiased():
    """Its mean over draws of z is sum q(z) (log q(z) - log p(z)) over all codes."""
    prior, every = strong(3, 2), codes(3, 2)
    q = torch.softmax(torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(1)), -1).flatten(1)
    log_q = (every * q.log()).sum(1)
    exact = float((log_q.exp() * (log_q - prior.log_prob(every))).sum().detach())
    many = code(q.expand(20_000, -1), 2)
    rates = prior.rate(many, many.sample(Draws.of(0).normal(20_000, 6))).detach().double()
    assert abs(float(rates.mean()) - exact) < 3.5 * float(rates.std()) / 20_000**0.5
    assert float(rates.std()) > 0.01  # the draws do matter


def test_it_learns_that_two_variables_agree():
    """Both variables name one of two classes of x, each rightly nine times in ten: the rate falls to I(x; z), which an
    independent prior cannot reach: it pays E KL(q(z | x) || q(z_1) q(z_2)) = 2 (log 2 - H(0.1))."""
    right = torch.tensor([0.9, 0.1])
    q = torch.stack([right.repeat(2), right.flip(0).repeat(2)])  # (2, 4)
    every = codes(2, 2)
    given = torch.stack([(every * row.log()).sum(1).exp() for row in q])  # q(z | x), (2, 4)
    information = float((given * (given / given.mean(0)).log()).sum(1).mean())
    apart = 2 * float((right * (2 * right).log()).sum())
    many, rates = code(q.repeat(256, 1), 2), {}
    for name, prior in (("joint", Autoregressive(2, 2, width=8)), ("independent", Categories(2, 2))):
        optimizer = torch.optim.Adam(prior.parameters(), 0.03)
        for step in range(200):
            optimizer.zero_grad()
            loss = prior.rate(many, many.sample(Draws.of(step).normal(512, 4))).mean()
            loss.backward()
            optimizer.step()
        weights = [float((row * (row.log() - prior.log_prob(every))).sum().detach()) for row in given]
        rates[name] = sum(weights) / 2
    assert rates["joint"] == pytest.approx(information, abs=0.01)
    assert rates["independent"] == pytest.approx(apart, abs=0.01)
    assert apart - information > 0.15


SMALL = [*NARROW, "code.dim=12", "code.classes=4", "code.rate=3"]
FACTS = Facts((1, 8, 8), 17)


def test_it_is_asked_for_by_its_setting():
    """vae-vdm trains it with the code, from the first step, and samples from it."""
    settings = override(Settings(), [*SMALL, "code.kind=categorical", "prior.kind=autoregressive"])
    model = build(settings, FACTS)
    loss = model.loss(Batch(torch.zeros(6, 1, 8, 8), torch.arange(6), draws=Draws.of(0)))
    sum(loss.values()).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.players()["model"]["prior"])
    assert model.sample(2, Draws.of(0), steps=2).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("method, more", [("vae-vdm", []), ("drl", ["code.rate=none"])])
def test_it_is_for_categorical_codes_alone(method, more):
    """Numbers have no classes, and that is said."""
    settings = override(Settings(method=method), [*SMALL, "prior.kind=autoregressive", *more])
    with pytest.raises(UserError, match=r"code\.kind=categorical"):
        build(settings, FACTS)
