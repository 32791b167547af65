"""The loss of a denoiser that sees each number alone: what the table says of its mean, against many draws."""

import math

import pytest
import torch

from diffrep.denoising.parameterisations import EDM, Eps, Marginal
from diffrep.shapes import expand

ENDS = torch.tensor([13.3, -5.0])


def histogram(channels: int = 1) -> torch.Tensor:
    """Uneven counts of 256 levels, another half of them for each channel."""
    counts = torch.ones(channels, 256)
    for channel in range(channels):
        counts[channel, :: channel + 2] = 20.0
        counts[channel, 0] = 3000.0
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_its_mean_is_that_of_many_draws(channels):
    """Two routes to one number: a table of integrals, and plain draws of noise levels and noise."""
    generator = torch.Generator().manual_seed(0)
    control = Marginal(channels, 256, histogram(channels)).alone(ENDS)
    level = torch.randint(0, 256, (1, channels, 3, 3), generator=generator)
    level[0, 0, 0] = 0  # the level that most numbers have
    x = 2 * (level + 0.5) / 256 - 1
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
