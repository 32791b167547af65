"""Latent classes of examples: found where they were put, with the histograms that were put there."""

import numpy as np
import pytest
import torch

from diffrep import data
from diffrep.config import Settings, override
from diffrep.data.counted import GreyLevels
from diffrep.data.mixture import CLASSES, EXAMPLES_EACH, HISTOGRAMS, LEVELS, groups_of, latent_classes
from diffrep.data.places import places
from diffrep.methods.catalog import build
from diffrep.shapes import Facts, Mixture


def fitted(train: data.Examples, classes: int) -> Mixture | None:
    return GreyLevels(train, classes).mixture


def two_inks(n: int = 900) -> data.Examples:
    """8x8 pictures of noise whose right half has the grey level 252 in a quarter of them, 253 in the others."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (n, 1, 8, 8)).astype(np.uint8)
    ink = np.where(rng.random(n) < 0.25, 252, 253).astype(np.uint8)
    x[..., 4:] = ink[:, None, None, None]
    return data.load(x, valid=0.1, test=0.1).train


def test_classes_are_found_with_their_histograms():
    """Two inks that differ by one grey level are two classes, a quarter and three quarters of the pictures."""
    train = two_inks()
    group, weights, counts = fitted(train, 2)
    light = int(weights.argmin())
    assert float(weights[light]) == pytest.approx(0.25, abs=0.05)
    right = counts[:, group[0, 0, 7]] / counts[:, group[0, 0, 7]].sum(1, keepdim=True)
    assert right[light, 252] > 0.98 and right[1 - light, 253] > 0.98
    torch.testing.assert_close(weights.sum(), torch.ones(()).double())


def test_two_processes_fit_the_same_mixture():
    """The fit has random numbers of its own, whatever else a process has drawn."""
    first = fitted(two_inks(), 2)
    torch.rand(3)
    for a, b in zip(first, fitted(two_inks(), 2), strict=True):
        assert torch.equal(a, b)


def test_one_class_counts_everything():
    """A single class has the histogram of each group of places."""
    train = two_inks()
    group, weights, counts = fitted(train, 1)
    assert weights.tolist() == [1.0]
    expected = places(train, groups_of(train.shape, 1))
    assert torch.equal(group, expected[0]) and torch.equal(counts[0], expected[1])


def test_many_grey_levels_are_counted_in_ranges():
    """16-bit pictures: 65,536 counts for each group and example do not fit into memory; 512 ranges of 128 do."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4 * 128, (400, 1, 4, 4)).astype(np.uint16)
    x[:100, ..., 2:], x[100:, ..., 2:] = 128 * 300 + 5, 128 * 301 + 5
    train = data.load(rng.permutation(x), valid=0.1, test=0.1).train
    group, weights, counts = fitted(train, 2)
    assert train.bins == 65536 and counts.shape[2] == LEVELS
    right = counts[:, group[0, 0, 3]]
    assert sorted(right.argmax(1).tolist()) == [300, 301]
    assert int(right[weights.argmin()].argmax()) == 300


@pytest.mark.parametrize(
    "shape, examples, classes",
    [
        ((1, 28, 28), 54_000, CLASSES),
        ((3, 32, 32), 45_000, CLASSES),
        ((1, 8, 8), 2 * EXAMPLES_EACH - 1, 1),
        ((1, 8, 8), 3 * EXAMPLES_EACH, 3),
        ((16,), 10_000, HISTOGRAMS // 16),
        ((100,), 10_000, 1),
    ],
)
def test_as_many_classes_as_tables_and_examples_allow(shape, examples, classes):
    """At most eight; no more than 64 tables in all, and at least 150 examples for each class."""
    assert latent_classes(shape, examples) == classes
    assert classes * shape[0] * groups_of(shape, classes) <= HISTOGRAMS or classes == 1


def test_continuous_data_have_no_mixture():
    """Without grey levels there is nothing to count."""
    assert fitted(data.load(np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)).train, 1) is None


def test_a_larger_class_takes_the_larger_share_of_what_is_between():
    """Where pictures fit both classes, the weights are a fixed point: the mean of the posteriors they belong to."""
    rng = np.random.default_rng(0)
    light = rng.random(3000) < 0.85
    x = np.where(rng.random((3000, 1, 2, 4)) < np.where(light, 0.75, 0.25)[:, None, None, None], 1, 0)
    train = data.load((255 * x).astype(np.uint8), valid=0.1, test=0.1).train
    group, weights, counts = fitted(train, 2)
    p = 0.999 * counts / counts.sum(2, keepdim=True) + 0.001 / counts.shape[2]
    grey = train.store.raw(torch.arange(len(train))).long().flatten(1)
    log_p = p[:, group.flatten(), grey].log().sum(2)  # (2, N)
    posterior = torch.softmax(log_p + weights.log()[:, None], 0)
    torch.testing.assert_close(posterior.mean(1), weights, atol=0.01, rtol=0)
    assert float(weights.max()) == pytest.approx(0.85, abs=0.06)


@pytest.mark.parametrize("method, changes, uses", [
    ("vdm", [], {"places", "mixture"}),
    ("vdm", ["decoder.mixture=false"], {"places"}),
    ("vdm", ["decoder.mixture=false", "decoder.by_place=false", "decoder.start=normal"], {"histogram"}),
    ("dsm", ["predicts=eps"], set()),
    ("simclr", [], set()),
    ("ae", [], set()),
])  # fmt: skip
def test_only_what_a_model_uses_is_counted(method, changes, uses):
    """A method without such a decoder reads no example for it; groups of places are made once for start and mixture."""
    counted = GreyLevels(two_inks(), 2)
    small = ["decoder.width=8", "encoder.width=4", f"method={method}", *changes]
    build(override(Settings(), small), Facts((1, 8, 8), 256, counted, latent=2), warn=False)
    assert {"histogram", "places", "mixture"} & vars(counted).keys() == uses
    if "mixture" in uses:
        assert counted.mixture.group is counted.places[0]
