"""Losses of two views, by hand and in closed form, and the encoders that learn from them."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from diffrep.codes.posteriors import Deterministic
from diffrep.data.views import noisy
from diffrep.errors import UserError
from diffrep.models.contrast import nt_xent, vicreg
from diffrep.models.contrastive import Contrastive
from diffrep.nets.encoders import MLPEncoder
from diffrep.shapes import Batch, Draws


def projections(batch: int, dim: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, dim, generator=generator) for _ in range(2)]


def test_nt_xent_is_the_cross_entropy_written_out():
    """Each view names its partner among all others, in numpy, sum by sum."""
    (a, b), temperature = projections(5, 3), 0.3
    both = torch.cat([a, b]).double().numpy()
    unit = both / np.linalg.norm(both, axis=1, keepdims=True)
    nats = np.zeros(10)
    for i in range(10):
        others = [k for k in range(10) if k != i]
        scores = np.array([unit[i] @ unit[k] / temperature for k in others])
        nats[i] = np.log(np.exp(scores).sum()) - unit[i] @ unit[(i + 5) % 10] / temperature
    found = nt_xent(a, b, temperature)["contrast"]
    np.testing.assert_allclose(found.numpy(), (nats[:5] + nats[5:]) / 2, rtol=1e-5)


def test_nt_xent_does_not_see_lengths_or_the_order_of_views():
    """Cosines have no scale, and both views of an example count alike; a batch that is all alike costs log(2 B - 1)."""
    a, b = projections(6, 4)
    plain = nt_xent(a, b, 0.5)["contrast"]
    torch.testing.assert_close(nt_xent(7 * a, 0.1 * b, 0.5)["contrast"], plain)
    torch.testing.assert_close(nt_xent(b, a, 0.5)["contrast"], plain)
    same = torch.ones(6, 4)
    torch.testing.assert_close(nt_xent(same, same, 0.5)["contrast"], torch.full((6,), math.log(11)))


def test_vicreg_in_closed_form():
    """Columns +-c that are orthogonal: variance 4 c^2 / 3 for B = 4, no covariance; equal views cost no invariance."""
    signs = torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]])
    a = 0.5 * signs
    found = vicreg(a, a)
    std = math.sqrt(4 * 0.25 / 3 + 1e-4)
    torch.testing.assert_close(found["invariance"], torch.zeros(4))
    torch.testing.assert_close(found["variance"], torch.full((4,), 25 * 2 * (1 - std)))
    torch.testing.assert_close(found["covariance"], torch.zeros(4), atol=1e-6, rtol=0)
    assert float(vicreg(3 * a, 3 * a)["variance"].sum()) == 0  # a spread above one is free
    shifted = vicreg(a, a + torch.tensor([1.0, 2.0, 0.0]))["invariance"]
    torch.testing.assert_close(shifted, torch.full((4,), 25 * 5 / 3))


def test_vicreg_counts_the_covariances_of_twins():
    """Two equal columns of variance v beside an orthogonal one: 2 v^2 / 3 for each of the two views."""
    a = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, -1.0]])
    v = 4 / 3
    torch.testing.assert_close(vicreg(a, a)["covariance"], torch.full((4,), 2 * (2 * v**2 / 3)))


def encoder(compare, view=None):
    torch.manual_seed(0)
    return Contrastive(
        (6,), None, Deterministic(MLPEncoder((6,), 32, 1), 4), nn.Linear(4, 8), view or noisy(0.1), compare
    )


@pytest.mark.parametrize("compare", [partial(nt_xent, temperature=0.5), vicreg])
def test_a_contrastive_encoder_compares_two_draws_of_the_view(compare):
    """Its terms are those of two views made by hand from the same draws; the code that it gives is of x as it is."""
    model, x = encoder(compare), torch.randn(8, 6)
    draws = Draws.of(5)
    a, b = (model.head(model.posterior(x + 0.1 * draws.normal(8, 6)).mean) for _ in range(2))
    terms = model.loss(Batch(x, torch.arange(8), draws=Draws.of(5)))
    for name, nats in compare(a, b).items():
        torch.testing.assert_close(terms[name], nats)
    torch.testing.assert_close(model.encode(x).mean, model.posterior(x).mean)
    assert set(model.watch()) == {"active_units", "code_variance"}


def test_a_code_learns_what_the_views_keep():
    """Views that redraw three of six numbers leave three: the code comes to tell those and to forget the rest."""

    def redrawn(x, draws):
        return torch.cat([x[:, :3], draws.normal(len(x), 3)], 1)

    model = encoder(partial(nt_xent, temperature=0.2), redrawn)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(200):
        x = torch.randn(64, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model.loss(Batch(x, torch.arange(64), draws=Draws.of(step)))["contrast"].mean().backward()
        optimizer.step()
    x = torch.randn(2000, 6, generator=torch.Generator().manual_seed(9))
    z = torch.cat([model.encode(x).mean, torch.ones(2000, 1)], 1)
    told = 1 - ((z @ torch.linalg.lstsq(z, x).solution - x) ** 2).mean(0) / x.var(0)
    assert float(told[:3].mean()) > 0.5 and float(told[3:].max()) < 0.1


def test_a_batch_of_one_has_nothing_to_be_compared_with():
    """One sentence in place of numbers that are not finite."""
    with pytest.raises(UserError, match="batch of one"):
        encoder(vicreg).loss(Batch(torch.randn(1, 6), torch.arange(1), draws=Draws.of(0)))
