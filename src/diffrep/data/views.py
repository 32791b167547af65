"""Views: random changes of examples, drawn from the random generator of a step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffrep.errors import UserError
from diffrep.shapes import Data, Draws, expand

PER_ROW, NONE = 1e4, 1e-4  # counts that each cell was brought to; below NONE of them there is none
View = Callable[[Data, Draws], Data]  # x (B, *shape) -> like x; each example is changed independently of the others
Hide = Callable[[Data, Draws], Tensor]  # x (B, *shape) -> like x, true where it is hidden


Split = Callable[[Data, Draws], tuple[Data, Data]]  # x -> what an encoder sees of it, and what a decoder makes


def chain(*views: View) -> View:
    """One view after the other."""

    def view(x: Data, draws: Draws) -> Data:
        for one in views:
            x = one(x, draws)
        return x

    return view


def crop(least: float) -> View:
    """A box of `least` to 1 of each spatial axis, each axis for itself, stretched to the whole by linear interpolation.

    It replaces the resized crop of SimCLR (Appendix A): it draws the two sides, not area and aspect ratio.
    """

    def view(x: Data, draws: Draws) -> Data:
        for axis, size in enumerate(x.shape[2:], start=2):
            share = least + (1 - least) * draws.uniform(len(x))
            x = resized(x, axis, size * (1 - share) * draws.uniform(len(x)), share)
        return x

    return view


def resized(x: Data, axis: int, start: Tensor, share: Tensor) -> Data:
    """The interval [start, start + share * size) of an axis, start (B,) in positions, stretched to all `size` of them.

    Position i of the result is read at start + (i + 1/2) share - 1/2, between its two neighbours.
    """
    size = x.shape[axis]
    place = torch.arange(size, device=x.device)
    read = (start[:, None] + (place + 0.5) * share[:, None] - 0.5).clamp(0, size - 1)
    weights = (1 - (read[:, :, None] - place).abs()).clamp(min=0)  # (B, size, size), rows sum to one
    rows = x.movedim(axis, -1)
    return (rows @ weights.mT.reshape(len(x), *[1] * (x.ndim - 3), size, size)).movedim(-1, axis)


def flip(x: Data, draws: Draws) -> Data:
    """Each example is mirrored along its last axis with probability 1/2."""
    return torch.where(expand(draws.uniform(len(x)) < 0.5, x), x.flip(-1), x)


def jitter(amount: float) -> View:
    """(1 + a) x + b for each channel, a and b uniform in [-amount, amount]: contrast, brightness and a cast of colour.

    SimCLR changes colours in more ways (Appendix A); here the values are not clipped.
    """

    def view(x: Data, draws: Draws) -> Data:
        a, b = (amount * (2 * draws.uniform(*x.shape[:2], *[1] * (x.ndim - 2)) - 1) for _ in range(2))
        return (1 + a) * x + b

    return view


def noisy(scale: float) -> View:
    """x plus normal numbers of this standard deviation, in the units of x."""

    def view(x: Data, draws: Draws) -> Data:
        return x + scale * draws.normal(*x.shape)

    return view


def erase(most: float) -> View:
    """A box of 0 to `most` of each spatial axis set to zero (Zhong et al. 2020; DeVries and Taylor 2017)."""

    def view(x: Data, draws: Draws) -> Data:
        inside = torch.ones_like(x[:, :1], dtype=torch.bool)
        for axis, size in enumerate(x.shape[2:], start=2):
            length = size * most * draws.uniform(len(x))
            low = (size - length) * draws.uniform(len(x))
            place = torch.arange(size, device=x.device) + 0.5
            along = (place >= low[:, None]) & (place < (low + length)[:, None])
            inside = inside & along.reshape(len(x), *(size if k == axis else 1 for k in range(1, x.ndim)))
        return x.masked_fill(inside, 0.0)

    return view


def drop(share: float) -> View:
    """Each number set to zero, the mean of standardised features, with this probability."""

    def view(x: Data, draws: Draws) -> Data:
        return x.masked_fill(draws.uniform(*x.shape) < share, 0.0)

    return view


def hidden(x: Data, draws: Draws, share: float, side: int) -> Tensor:
    """Like x, true where it is hidden: `share` of the patches of `side` positions an axis, at least one, never all.

    A vector's patches are its numbers. Patches at the far end of an axis that `side` does not divide are smaller.
    """
    axes = x.shape[1:] if x.ndim == 2 else x.shape[2:]
    grid = [math.ceil(size / side) for size in axes]
    count = math.prod(grid)
    if count < 2:
        raise UserError(f"expected at least two patches to hide some of, got one of {side} positions in {tuple(axes)}")
    rank = draws.uniform(len(x), count).argsort(1).argsort(1)
    mask = (rank < min(max(round(share * count), 1), count - 1)).reshape(len(x), *grid)
    for axis, size in enumerate(axes, start=1):
        mask = mask.repeat_interleave(side, axis).narrow(axis, 0, size)
    return (mask if x.ndim == 2 else mask[:, None]).expand_as(x)


def thinned(mean: Tensor, std: Tensor, share: float) -> Split:
    """Counts cut in two by binomial thinning: each count for itself falls into the first part with probability `share`.

    x (B, F): standardised log(1 + 10,000 count / total) of `mean` and `std` (F,), and so are the two parts. The parts
    of Poisson counts are independent, so that what one says of the other is what both say of the cell (Neufeld et al.
    2024).
    """

    def split(x: Data, draws: Draws) -> tuple[Data, Data]:
        counts = counts_of(x, mean.to(x.device), std.to(x.device))
        seeds = (draws.uniform(len(x)).double() * 2**24).long().tolist()
        first = torch.stack(
            [
                torch.binomial(row, torch.full_like(row, share), generator=torch.Generator().manual_seed(seed))
                for row, seed in zip(counts.cpu(), seeds, strict=True)
            ]
        ).to(x.device)
        one, other = (_standardised(part, mean, std).to(x.dtype) for part in (first, counts - first))
        return one, other

    return split


def counts_of(x: Data, mean: Tensor, std: Tensor) -> Tensor:
    """x (B, F), as in `thinned` -> its counts (B, F), float64, up to a factor that all counts of a cell share.

    The least number above zero of a cell is m counts, m the least of 1 to 8 for which all become whole. Cells with a
    gene that was counted once have m = 1.
    """
    scaled = torch.expm1(x.double() * std + mean).clamp(min=0)
    there = scaled > NONE
    least = scaled.masked_fill(~there, torch.inf).amin(1, keepdim=True)
    counts, matched = torch.zeros_like(scaled), torch.zeros_like(least, dtype=torch.bool)
    for m in range(8, 0, -1):
        count = torch.where(there, scaled / least * m, 0.0)
        whole = ((count - count.round()).abs() < 0.02 + 1e-4 * count).all(1, keepdim=True) | (~matched & (m == 1))
        counts, matched = torch.where(whole, count.round(), counts), matched | whole
    return counts


def _standardised(counts: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    table = torch.log1p(PER_ROW * counts / counts.sum(1, keepdim=True).clamp(min=1))
    return (table - mean.to(table.device)) / std.to(table.device)
