"""Latent classes in the preconditioner: the exact posterior of a mixture, its gradient, and one class alone."""

from copy import deepcopy
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from diffrep.config import Settings, override
from diffrep.denoising.build import parameterisation
from diffrep.denoising.grey_levels import Bilinear
from diffrep.denoising.parameterisations import MarginalByPlace, MarginalMixture, Tabulated, in_pieces
from diffrep.shapes import Facts, Mixture

GROUP = torch.tensor([[[0, 1, 1]]])
COUNTS = torch.tensor([[[70, 20, 5, 5], [4, 1, 90, 5]], [[5, 5, 20, 70], [4, 80, 1, 15]]]).double()
MIXED = Mixture(GROUP, torch.tensor([0.8, 0.2]).double(), COUNTS)


def enumerated(y: torch.Tensor, s: float | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std of each of three numbers given y, by a sum over both classes and all 64 pictures."""
    p = 0.999 * COUNTS / COUNTS.sum(2, keepdim=True) + 0.001 / 4
    level = (2 * torch.arange(4).double() + 1) / 4 - 1
    weights, pictures = [], []
    for k, grey in product(range(2), product(range(4), repeat=3)):
        x = level[list(grey)]
        prior = MIXED.weights[k] * torch.stack([p[k, g, v] for g, v in zip((0, 1, 1), grey, strict=True)]).prod()
        weights.append(prior * torch.exp(-0.5 * ((y - x) / s) ** 2).prod())
        pictures.append(x)
    w = torch.stack(weights)
    w, x = w[:, None] / w.sum(), torch.stack(pictures)
    mean = (w * x).sum(0)
    return mean, ((w * (x - mean) ** 2).sum(0)).sqrt()


@pytest.mark.parametrize("s", [0.1, 0.3, 0.7, 2.0, torch.tensor([0.2, 1.5, 0.5])], ids=str)
def test_moments_are_those_of_the_exact_posterior(s):
    """Against the sum over all pictures and classes; a class is read from all numbers of a picture together. With an
    observed code each number has noise of its own."""
    random = torch.Generator().manual_seed(0)
    x = (2 * torch.randint(0, 4, (20, 1, 1, 3), generator=random) + 1) / 4 - 1
    y = x + s * torch.randn(x.shape, generator=random)
    mean, std = MarginalMixture((1, 1, 3), 4, 2, 2, MIXED).moments(y, torch.as_tensor(s) * torch.ones(20, 1, 1, 1))
    for i, row in enumerate(y.flatten(1).double()):
        exact_mean, exact_std = enumerated(row, s)
        torch.testing.assert_close(mean[i].flatten().double(), exact_mean, atol=3e-3, rtol=0)
        torch.testing.assert_close(std[i].flatten().double(), exact_std, atol=3e-3, rtol=0)


@pytest.mark.parametrize("s", [30.0, 100.0, 1000.0])
def test_much_noise_tells_little_of_the_class(s):
    """Beyond the last row of the table too the classes have their exact posterior, here of 3,000 numbers."""
    random = torch.Generator().manual_seed(0)
    p = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]).double()
    mixed = Mixture(torch.zeros(1, 3000, dtype=torch.int64), torch.tensor([0.6, 0.4]).double(), 1e6 * p[:, None])
    level = (2 * torch.arange(4).double() + 1) / 4 - 1
    y = level[torch.multinomial(p[0], 30 * 3000, True, generator=random)].reshape(30, 1, 3000)
    y = y + s * torch.randn(y.shape, generator=random, dtype=torch.float64)
    mean, _ = MarginalMixture((1, 3000), 4, 1, 2, mixed).moments(y.float(), torch.full((30, 1, 1), s))
    p = 0.999 * p + 0.001 / 4
    likelihood = torch.exp(-0.5 * ((y[..., None] - level) / s) ** 2)
    evidence = torch.log(likelihood @ p.T).sum((1, 2)) + mixed.weights.log()
    exact = evidence.softmax(1) @ p @ level  # the number itself moves it by 1 / s
    torch.testing.assert_close(mean.double().mean((1, 2)), exact, atol=0.01, rtol=0)


def test_moments_in_pieces_are_those_of_all_together():
    """Values and gradients, with noise levels for each example and for each number."""
    mixture = MarginalMixture((1, 1, 3), 4, 2, 2, MIXED)
    random = torch.Generator().manual_seed(0)
    for shape in ((7, 1, 1, 1), (7, 1, 1, 3)):
        y = torch.randn(7, 1, 1, 3, generator=random, requires_grad=True)
        s = (0.2 + torch.rand(shape, generator=random)).requires_grad_()
        whole, pieces = mixture.moments(y, s), in_pieces(mixture.moments, y, s, at_once=6)
        torch.testing.assert_close(pieces, whole)
        gradients = [torch.autograd.grad((mean + std**2).sum(), (y, s)) for mean, std in (whole, pieces)]
        torch.testing.assert_close(*gradients)


def test_one_class_is_the_preconditioner_by_place():
    """A mixture of one class has the moments and the control variate of `MarginalByPlace` with its counts."""
    one = MarginalMixture((1, 1, 3), 4, 2, 1, Mixture(GROUP, torch.ones(1).double(), COUNTS[:1]))
    by_place = MarginalByPlace((1, 1, 3), 4, 2, (GROUP, COUNTS[0]))
    y, s = torch.randn(6, 1, 1, 3), torch.full((6, 1, 1, 1), 0.3)
    for a, b in zip(one.moments(y, s), by_place.moments(y, s), strict=True):
        torch.testing.assert_close(a, b)
    ends, x, log_snr = torch.tensor([8.0, -5.0]), torch.full((6, 1, 1, 3), -0.75), torch.full((6,), 2.0)
    a, b = one.alone(ends), by_place.alone(ends)
    torch.testing.assert_close(a.loss(x, y, log_snr), b.loss(x, y, log_snr))
    torch.testing.assert_close(a.mean(x, torch.ones(16)), b.mean(x, torch.ones(16)))


def test_a_loaded_mixture_is_the_same():
    """Weights, groups and histograms are loaded with the model; the table is made of them."""
    made, loaded = MarginalMixture((1, 1, 3), 4, 2, 2, MIXED), MarginalMixture((1, 1, 3), 4, 2, 2)
    y, s = torch.randn(6, 1, 1, 3), torch.full((6, 1, 1, 1), 0.3)
    before = loaded.moments(y, s)[0]
    loaded.load_state_dict(made.state_dict())
    assert torch.equal(made.moments(y, s)[0], loaded.moments(y, s)[0])
    assert not torch.allclose(before, loaded.moments(y, s)[0])


def test_a_table_is_made_anew_only_for_other_values():
    """Several processes write the same histograms at each step, and an average of the weights is a copy."""
    made: list[torch.Tensor] = []
    table, prior = Tabulated(lambda prior: made.append(prior) or 2 * prior), torch.rand(3)
    table(prior)
    prior.copy_(prior.clone())
    copied, copied_prior = deepcopy((table, prior))
    assert torch.equal(table(prior).float(), 2 * prior) and torch.equal(copied(copied_prior), table(prior))
    assert len(made) == 1
    prior.mul_(2)
    assert torch.equal(table(prior).float(), 2 * prior) and len(made) == 2


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("by_place", [True, False])
def test_settings_choose_groups_of_places_or_channels(by_place, classes):
    """Without groups of places the histograms of a channel are the sums over its groups."""
    group = torch.tensor([[[0, 1, 2], [3, 4, 5], [6, 7, 7]]])
    counts = torch.rand(classes, 8, 16, generator=torch.Generator().manual_seed(0)).double()
    of_all = torch.rand(1, 16, generator=torch.Generator().manual_seed(1)).double()
    mixed = Mixture(group, torch.full((classes,), 1 / classes), counts)
    facts = Facts((1, 3, 3), 16, SimpleNamespace(histogram=of_all, mixture=mixed), latent=classes)
    settings = override(Settings(), [f"decoder.by_place={str(by_place).lower()}"])
    built = parameterisation("marginal", settings.decoder, facts)
    summed = of_all[None] if classes == 1 else counts.sum(1, keepdim=True)
    expected = counts if by_place else summed
    assert torch.equal(built.places, group if by_place else torch.zeros_like(group))
    share = 0.999 * expected / expected.sum(2, keepdim=True) + 0.001 / 16
    torch.testing.assert_close(built.prior, share.float())


def test_interpolation_is_bilinear_with_its_gradient():
    """Values against four products written out, gradients against finite differences."""
    random = torch.Generator().manual_seed(0)
    table = torch.randn(30, 5, dtype=torch.float64, generator=random)
    corners = torch.randint(0, 30, (7, 4), generator=random)
    r, c = (torch.rand(7, dtype=torch.float64, generator=random, requires_grad=True) for _ in range(2))
    upper = (1 - c)[:, None] * table[corners[:, 0]] + c[:, None] * table[corners[:, 1]]
    lower = (1 - c)[:, None] * table[corners[:, 2]] + c[:, None] * table[corners[:, 3]]
    torch.testing.assert_close(Bilinear.apply(table, corners, r, c), (1 - r)[:, None] * upper + r[:, None] * lower)
    assert torch.autograd.gradcheck(lambda r, c: Bilinear.apply(table, corners, r, c), (r, c))
