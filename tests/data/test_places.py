"""Groups of places: found where they were put, with the counts that were put there."""

import numpy as np
import pytest
import torch

from diffrep import data
from diffrep.data.places import BLEND, GROUPS, places
from diffrep.denoising.parameterisations import Marginal, MarginalByPlace


def halves(channels: int = 1) -> data.Examples:
    """8x8 pictures: the left half is black, the right half any of 256 levels."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (200, channels, 8, 8)).astype(np.uint8)
    x[..., :4] = 0
    return data.load(x, valid=0.1, test=0.1).train


@pytest.mark.parametrize("channels", [1, 2])
def test_unlike_places_are_in_different_groups(channels):
    """No group has places of both halves, channels share none, and the black half's histogram is black but for 1 %."""
    group, shares = places(halves(channels))
    assert shares.shape == (channels * GROUPS, 256)
    for channel in range(channels):
        left, right = set(group[channel, :, :4].flatten().tolist()), set(group[channel, :, 4:].flatten().tolist())
        assert not left & right and left | right <= set(range(channel * GROUPS, (channel + 1) * GROUPS))
        (black,) = left
        assert float(shares[black, 0]) == pytest.approx(1 - BLEND / 2, abs=1e-3)  # half of all numbers are black
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares), dtype=torch.float64))


def test_places_that_are_all_alike_are_one_group():
    """A picture whose numbers are all equal needs one histogram, that of its channel."""
    x = np.repeat(np.arange(100, dtype=np.uint8), 16).reshape(100, 1, 4, 4)
    train = data.load(x, valid=0.1, test=0.1).train
    group, shares = places(train)
    assert not group.any()
    torch.testing.assert_close(shares[0], train.histogram()[0].double() / train.histogram().sum())


def test_continuous_data_have_no_places():
    """Without grey levels there is nothing to count."""
    assert places(data.load(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)).train) is None


def test_one_group_is_the_histogram_of_all():
    """With the same counts at every place the preconditioner by place is the one for all, and loads without data."""
    counts = torch.rand(1, 16) * 100
    at, y = torch.zeros(1, 4, 4, dtype=torch.int64), torch.randn(3, 1, 4, 4)
    made, loaded = MarginalByPlace((1, 4, 4), 16, 1, (at, counts)), MarginalByPlace((1, 4, 4), 16, 1)
    before = loaded.moments(y, torch.ones(1))
    loaded.load_state_dict(made.state_dict())
    for part, by_place, again, empty in zip(
        Marginal(1, 16, counts).moments(y, torch.ones(1)),
        made.moments(y, torch.ones(1)),
        loaded.moments(y, torch.ones(1)),
        before,
        strict=True,
    ):
        torch.testing.assert_close(part, by_place)
        assert torch.equal(by_place, again) and not torch.allclose(again, empty)
