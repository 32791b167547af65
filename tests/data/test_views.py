"""Views: crops against linear interpolation by hand, their statistics, and that an example's depends on it alone."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffrep.data.views import chain, crop, drop, erase, flip, hidden, jitter, noisy, resized
from diffrep.errors import UserError
from diffrep.shapes import Draws

SHAPES = {"signal": (2, 9), "image": (3, 6, 5), "volume": (1, 4, 3, 5)}
SPATIAL = {"crop": crop(0.3), "erase": erase(0.7), "jitter": jitter(0.5), "noisy": noisy(0.2), "drop": drop(0.3)}
SPATIAL |= {"flip": flip, "chain": chain(crop(0.5), flip, jitter(0.1), erase(0.3), noisy(0.1))}


def some(shape, size=4, seed=0):
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", SPATIAL)
def test_a_view_follows_from_its_draws_and_not_from_the_cut_of_the_batch(name, shape):
    """Two processes, or a run that goes on, must see what one unbroken run sees: to the last bit."""
    view, x = SPATIAL[name], some(shape)
    whole = view(x, Draws.of(3))
    halves = [view(x[2 * part : 2 * part + 2], Draws.of(3, shard=part, shards=2)) for part in range(2)]
    assert torch.equal(torch.cat(halves), whole)
    assert whole.shape == x.shape and whole.dtype == x.dtype
    assert not torch.equal(view(x, Draws.of(4)), whole)
    changed = x.clone()
    changed[1] += 1
    assert torch.equal(view(changed, Draws.of(3))[[0, 2, 3]], whole[[0, 2, 3]])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_views_that_change_nothing(shape):
    """A crop of the whole, an empty box and no noise each give back x."""
    x = some(shape)
    for view in (crop(1.0), erase(0.0), jitter(0.0), noisy(0.0), drop(0.0), chain()):
        torch.testing.assert_close(view(x, Draws.of(0)), x, rtol=0, atol=1e-6)


def test_a_crop_is_linear_interpolation():
    """Along each axis, against numpy's on the same places, which also holds the border value beyond the border."""
    x, start, share = some((2, 7, 10), size=3), torch.tensor([0.0, 2.5, 4.0]), torch.tensor([0.6, 0.75, 0.6])
    y = resized(x, 3, start, share)
    for b in range(3):
        places = float(start[b]) + (np.arange(10) + 0.5) * float(share[b]) - 0.5
        for c in range(2):
            for row in range(7):
                expected = np.interp(places, np.arange(10), x[b, c, row].numpy())
                np.testing.assert_allclose(y[b, c, row].numpy(), expected, atol=1e-5)
    turned = resized(x.transpose(2, 3), 2, start, share).transpose(2, 3)
    torch.testing.assert_close(turned, y)


def test_a_crop_of_the_middle_half_agrees_with_torch():
    """The inner half, doubled: away from its border it is PyTorch's own linear interpolation of that half."""
    x, half = some((1, 8)), torch.full((4,), 0.5)
    expected = F.interpolate(x[:, :, 2:6], scale_factor=2.0, mode="linear")
    torch.testing.assert_close(resized(x, 2, torch.full((4,), 2.0), half)[:, :, 1:-1], expected[:, :, 1:-1])


def test_crops_keep_what_they_promise():
    """On a ramp the slope of the result is the share kept: between the least and one, uniform, each axis its own."""
    size, least = 4000, 0.4
    ramp = torch.arange(64.0).expand(size, 1, 64, 64)
    y = crop(least)(ramp + 100 * ramp.mT, Draws.of(0))
    share_x, share_y = (y[:, 0, 31, 33] - y[:, 0, 31, 30]) / 3, (y[:, 0, 33, 31] - y[:, 0, 30, 31]) / 300
    for share in (share_x, share_y):
        assert share.min() >= least - 1e-3 and share.max() <= 1 + 1e-3
        assert abs(float(share.mean()) - (1 + least) / 2) < 4 * (1 - least) / math.sqrt(12 * size)
    assert abs(float(torch.corrcoef(torch.stack([share_x, share_y]))[0, 1])) < 4 / math.sqrt(size)
    middle = y[:, 0].mean((1, 2)) / 101  # of the box, as the ramp is linear
    assert abs(float(middle.mean()) - 31.5) < 4 * float(middle.std()) / math.sqrt(size)


def test_statistics_of_the_other_views():
    """Half are mirrored; jitter, noise, drop and boxes have the moments of their distributions."""
    size = 4000
    x = torch.arange(10.0).expand(size, 1, 10)
    mirrored = (flip(x, Draws.of(0))[:, 0, 0] == 9).double()
    assert abs(float(mirrored.mean()) - 0.5) < 4 * 0.5 / math.sqrt(size)
    y = jitter(0.3)(x, Draws.of(0))
    slope, shift = y[:, 0, 1] - y[:, 0, 0], y[:, 0, 0]
    assert abs(float(slope.mean()) - 1) < 0.02 and abs(float(shift.mean())) < 0.02
    for found in (slope, shift):
        assert float(found.std()) == pytest.approx(0.3 / math.sqrt(3), rel=0.05)
    assert float((noisy(0.4)(x, Draws.of(0)) - x).std()) == pytest.approx(0.4, rel=0.02)
    lost = (drop(0.3)(x + 1, Draws.of(0)) == 0).double()
    assert abs(float(lost.mean()) - 0.3) < 4 * math.sqrt(0.21 / (10 * size))
    blank = (erase(0.8)(torch.ones(size, 2, 20, 20), Draws.of(0)) == 0).double()
    assert torch.equal(blank[:, 0], blank[:, 1])
    assert float(blank.mean()) == pytest.approx(0.4**2, rel=0.05)  # sides of 0 to 0.8, 0.4 in the mean, independent
    assert float(blank.mean((1, 2, 3)).max()) <= 0.85**2


@pytest.mark.parametrize("share, count", [(0.75, 9), (0.5, 6), (0.01, 1), (0.99, 11)])
def test_patches_are_hidden_whole_and_in_their_number(share, count):
    """3 x 4 patches of two positions on 6 x 7: of each all or nothing, the asked number, never none and never all."""
    mask = hidden(some((3, 6, 7), size=200), Draws.of(0), share=share, side=2)
    assert torch.equal(mask, mask[:, :1].expand_as(mask))
    corners = mask[:, 0, ::2, ::2]
    assert torch.equal(corners.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :, :7], mask[:, 0])
    assert (corners.flatten(1).sum(1) == count).all()
    often = corners.double().mean(0)
    assert float((often - count / 12).abs().max()) < 4 * 0.5 / math.sqrt(200)


def test_numbers_of_a_vector_are_hidden_one_by_one():
    """And a mask, too, does not depend on the cut of the batch."""
    hide, x = partial(hidden, share=0.5, side=1), some((8,))
    mask = hide(x, Draws.of(1))
    assert mask.shape == x.shape and (mask.sum(1) == 4).all() and len({tuple(row.tolist()) for row in mask}) > 1
    halves = [hide(x[2 * part : 2 * part + 2], Draws.of(1, shard=part, shards=2)) for part in range(2)]
    assert torch.equal(torch.cat(halves), mask)
    with pytest.raises(UserError, match="at least two patches"):
        hidden(some((1, 4, 4)), Draws.of(0), share=0.5, side=4)
