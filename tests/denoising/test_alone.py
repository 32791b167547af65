"""The loss of a denoiser that sees each number alone: what the table says of its mean, against many draws."""

import math

import pytest
import torch

from diffrep.denoising.neighbours import RANGES, _ranges, by_neighbours
from diffrep.denoising.parameterisations import EDM, Eps, Marginal, MarginalMixture
from diffrep.shapes import Mixture, expand

ENDS = torch.tensor([13.3, -5.0])


def histogram(channels: int = 1) -> torch.Tensor:
    """Uneven counts of 256 levels, another half of them for each channel."""
    counts = torch.ones(channels, 256)
    for channel in range(channels):
        counts[channel, :: channel + 2] = 20.0
        counts[channel, 0] = 3000.0
    return counts


def two_classes(channels: int) -> MarginalMixture:
    """Two classes, each with its own histogram for each channel: dark examples, and bright ones."""
    counts = torch.stack([histogram(channels), histogram(channels).flip(1)]).double()
    group = torch.arange(channels)[:, None, None].expand(channels, 3, 3)
    mixed = Mixture(group, torch.tensor([0.7, 0.3]).double(), counts)
    return MarginalMixture((channels, 3, 3), 256, channels, 2, mixed)


CONTROLS = {
    "marginal": lambda x: Marginal(x.shape[1], 256, histogram(x.shape[1])).alone(ENDS),
    "class": lambda x: two_classes(x.shape[1]).alone(ENDS),
    "neighbours": lambda x: by_neighbours(
        2 * torch.rand(200, *x.shape[1:], generator=torch.Generator().manual_seed(1)) - 1, 256, ENDS
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind, channels", [("marginal", 1), ("marginal", 3), ("class", 3), ("neighbours", 1)])
def test_its_mean_is_that_of_many_draws(kind, channels):
    """Two routes to one number: a table of integrals, and plain draws of noise levels and noise."""
    generator = torch.Generator().manual_seed(0)
    level = torch.randint(0, 256, (1, channels, 3, 3), generator=generator)
    level[0, 0, 0] = 0  # the level that most numbers have
    x = 2 * (level + 0.5) / 256 - 1
    control = CONTROLS[kind](x)
    slopes = torch.linspace(0.2, 1.0, 16)
    said = float(control.mean(x, slopes))
    n = 40_000
    position = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    log_snr = ENDS[0] + (ENDS[1] - ENDS[0]) * position
    many = x.expand(n, *x.shape[1:])
    eps = torch.randn(many.shape, generator=generator)
    y = many + expand(torch.exp(-0.5 * log_snr), many) * eps
    nats = control.loss(many, y, log_snr) * slopes[(position * 16).long().clamp(max=15)]
    error = float(nats.double().std()) / math.sqrt(n)
    assert abs(said - float(nats.double().mean())) < 4 * error
    assert error < 0.01 * said


def test_who_knows_no_levels_has_none():
    """A denoiser without a table of grey levels, and one with more levels than the table tells apart."""
    assert Eps().alone(ENDS) is None and EDM().alone(ENDS) is None
    assert Marginal(1, 1024, torch.ones(1, 1024)).alone(ENDS) is None
    assert by_neighbours(torch.zeros(2, 1, 3, 3), 1024, ENDS) is None
    assert by_neighbours(torch.zeros(2, 5), 4, ENDS) is None and by_neighbours(torch.zeros(2, 5, 1), 4, ENDS) is None


@pytest.mark.parametrize("shape", [(2, 5), (1, 4, 3), (1, 3, 2, 4)])
def test_neighbours_are_those_that_touch(shape):
    """The mean of a number's neighbours, which it is not among, by a loop over all pairs of places."""
    level = torch.randint(0, 256, (3, *shape), generator=torch.Generator().manual_seed(0))
    x = 2 * (level + 0.5) / 256 - 1
    places = torch.cartesian_prod(*(torch.arange(n) for n in shape[1:])).reshape(-1, len(shape) - 1)
    far = (places[:, None] - places[None]).abs().amax(2)
    near = ((far == 1).double() @ x.double().flatten(2).mT).mT / (far == 1).sum(1)
    torch.testing.assert_close(_ranges(x, 256).flatten(2), ((near + 1) / 2 * RANGES).long())


def test_an_example_has_the_histograms_of_its_likeliest_class():
    """Dark numbers are of the first class, bright ones of the second; each channel has its own histogram there."""
    level = torch.tensor([0, 255]).reshape(2, 1, 1, 1).expand(2, 3, 3, 3)
    group = two_classes(3).alone(ENDS).group(2 * (level + 0.5) / 256 - 1)
    assert torch.equal(group[:, :, 0, 0], torch.tensor([[0, 1, 2], [3, 4, 5]]))
