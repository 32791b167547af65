"""Arrays: one layout and one scale, by exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffrep.data import load
from diffrep.errors import UserError
from samples import COLOUR, GREY, RNG, centres, parts_of, same_set, whole, write_folder, write_parquet


@pytest.mark.parametrize("levels, bins", [(GREY, 256), (GREY.astype(np.uint16) * 257, 65536), (GREY > 99, 2)])
def test_levels_are_centres_of_cells(levels, bins):
    """A level is the middle of its cell, so that the cells of a discretised likelihood tile [-1, 1]."""
    splits = load(levels)
    assert splits.train.bins == bins and splits.train.shape == (1, 6, 5)
    assert same_set(whole(splits), centres(levels, bins)[:, None])


def test_digits_are_those_of_sklearn():
    """Nothing is lost or doubled between the source and the three splits, and labels stay with their pictures."""
    from sklearn.datasets import load_digits

    digits, splits = load_digits(), load("digits")
    assert splits.train.bins == 17 and splits.train.shape == (1, 8, 8)
    x = whole(splits)
    levels = ((x + 1) * 17 / 2).floor()
    assert torch.allclose(x, centres(levels.numpy(), 17), atol=1e-6)
    labels = torch.cat([part.labels for part in parts_of(splits)])
    truth = np.concatenate([digits.images.reshape(-1, 64), digits.target[:, None]], 1)
    assert same_set(torch.cat([levels.flatten(1), labels[:, None]], 1), torch.from_numpy(truth))


def test_every_route_gives_the_same_pictures(tmp_path):
    """An array, a tensor, .npy, .npz, files, Parquet: the same pixels must give the same x, example by example."""
    first = np.moveaxis(COLOUR, -1, 1).copy()
    np.save(tmp_path / "a.npy", COLOUR)
    np.savez(tmp_path / "a.npz", images=COLOUR)
    write_folder(tmp_path / "folder", COLOUR)
    write_parquet(tmp_path / "hub" / "all.parquet", COLOUR, [0] * 12, ["only"])
    floats = first / 255 * 2 - 1
    routes = [COLOUR, first, torch.from_numpy(first), first.astype(np.int64), first.astype(np.float32)]
    routes += [tmp_path / "a.npy", str(tmp_path / "a.npz"), tmp_path / "folder", tmp_path / "hub"]
    truth = whole(load(routes[0]))
    assert truth.shape[1:] == (3, 6, 5)
    for route in routes:
        assert torch.equal(whole(load(route)), truth)
    for continuous in (floats, first / 255):
        splits = load(continuous)
        assert splits.train.bins is None
        assert torch.allclose(whole(splits), truth, atol=1.01 / 256)  # k / 255 and (k + 1/2) / 256: half a cell apart


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((9, 7, 5), (1, 7, 5)),
        ((9, 4, 6), (1, 4, 6)),
        ((9, 2, 50), (2, 50)),
        ((9, 5, 6, 7), (5, 6, 7)),
        ((9, 1, 3, 3), (1, 3, 3)),
        ((9, 48, 20, 1), (1, 48, 20)),
        ((9, 2, 4, 5, 6), (2, 4, 5, 6)),
        ((9, 11), (11,)),
    ],
)
def test_shapes(shape, expected):
    """Each rank has one meaning: pictures, signals, channels-first sets, volumes, vectors."""
    splits = load(RNG.integers(0, 256, shape, dtype=np.uint8))
    assert splits.train.shape == expected
    assert splits.train.batch(torch.tensor([0, 1])).x.shape == (2, *expected)


def test_floats_keep_their_meaning():
    """[0, 1] is stretched, [-1, 1] is taken as it is: both by exact arithmetic."""
    values = RNG.random((6, 4, 4)).astype(np.float32)
    assert same_set(whole(load(values)), torch.from_numpy(values * 2 - 1)[:, None])
    assert same_set(whole(load(values - 0.5)), torch.from_numpy(values - 0.5)[:, None])


def test_tables_are_standardised_by_the_training_split():
    """Mean 0 and variance 1 over train alone; `scaling` gives the numbers back; a constant feature becomes 0."""
    table = np.concatenate([RNG.normal(5, 3, (40, 3)), np.full((40, 1), 7.0)], 1)
    splits = load(table)
    x, (mean, std) = whole(splits), splits.train.scaling
    train = splits.train.batch(torch.arange(len(splits.train))).x
    assert torch.allclose(train.mean(0), torch.zeros(4), atol=1e-6)
    assert torch.allclose(train.std(0, correction=0), torch.tensor([1.0, 1, 1, 0]), atol=1e-6)
    assert np.allclose(np.sort((x * std + mean).numpy(), 0), np.sort(table, 0), atol=1e-5)
    assert splits.train.bins is None and splits.train.histogram() is None


def test_counts_are_brought_to_one_total():
    """Undoing the scaling and the logarithm gives rows of 10,000 with the proportions of the counts."""
    counts = RNG.poisson(RNG.gamma(0.2, 20, (30, 50))).astype(np.uint16)
    splits = load(counts)
    mean, std = splits.train.scaling
    undone = np.expm1((whole(splits) * std + mean).double().numpy())
    assert np.allclose(undone.sum(1), 1e4, rtol=1e-4) and "log" in splits.train.prepared
    truth = counts / counts.sum(1, keepdims=True) * 1e4
    assert np.allclose(np.sort(undone[:, 3]), np.sort(truth[:, 3]), rtol=1e-3, atol=1e-2)
    assert load(RNG.integers(20, 70, (30, 3))).train.prepared == "standardised for each feature"  # ages are no counts


@pytest.mark.parametrize(
    "values, words",
    [
        (GREY * 3.7, "from 0 to .* scale"),
        (GREY[:, :3, :3] / 100 * 99.5, "divide it by 255"),
        (GREY.astype(np.int64) - 300, "scale it"),
        (np.where(np.arange(12)[:, None, None] == 4, np.nan, GREY / 255), "30 NaN .* row 4"),
        (np.where(np.arange(12)[:, None] == 7, np.inf, RNG.normal(size=(12, 3))), "3 NaN .* row 7"),
        (np.zeros(5), "shape"),
        (np.zeros((0, 3, 3)), "no examples"),
        (np.array([["a", "b"]] * 4), "numbers"),
        ([[1], [1, 2]], "one array"),
        (GREY[:1], "1 example, expected at least 3"),
        (GREY[:2], "2 examples, expected at least 3"),
        ((GREY, np.arange(5)), "12 examples came with 5 labels"),
        ((GREY, np.arange(12)[:, None].repeat(2, 1)), "labels of shape"),
    ],
)
def test_bad_arrays(values, words):
    """What came, what was expected, what to do, in one sentence."""
    with pytest.raises(UserError, match=words) as error:
        load(values)
    assert "\n" not in str(error.value)
