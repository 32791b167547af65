"""Splits share nothing and stay the same; labels, fingerprint and histogram belong to their examples."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from diffrep import data
from diffrep.data import load
from diffrep.errors import UserError
from oracles import examples_of
from samples import COLOUR, GREY, centres, parts_of, same_set, whole, write_folder


def test_splits_share_nothing_and_are_the_same_each_time():
    """Disjoint, complete, a function of the seed alone, of the sizes asked for."""
    values = np.arange(100, dtype=np.uint8)[:, None, None].repeat(3, 1).repeat(3, 2)
    values = np.ascontiguousarray(np.pad(values, ((0, 0), (0, 3), (0, 0))))
    a, b, c = load(values, valid=0.1, test=0.3), load(values, valid=0.1, test=0.3), load(values, seed=1)
    assert [len(p) for p in parts_of(a)] == [60, 10, 30]
    assert same_set(whole(a), centres(values, 256)[:, None])
    assert torch.equal(whole(a), whole(b)) and not torch.equal(
        a.test.batch(torch.arange(20)).x, c.test.batch(torch.arange(20)).x
    )
    assert [p.split for p in parts_of(a)] == ["train", "valid", "test"]


def test_a_whole_source_in_its_order(tmp_path):
    """One example is enough, and a table is standardised as the model that reads it was trained."""
    every = data.whole(GREY)
    assert every.split == "all" and torch.equal(every.batch(torch.arange(12)).x, centres(GREY, 256)[:, None])
    write_folder(tmp_path, GREY[:1])
    for source in (tmp_path, tmp_path / "0000.png"):
        one = data.whole(source)
        assert one.ids == ["0000.png"] and torch.equal(one.batch(torch.tensor([0])).x, centres(GREY[:1], 256)[:, None])
    table = np.random.default_rng(1).normal(4, 2, (20, 3))
    train = load(table).train
    again = data.whole(table, scaling=train.scaling)
    own = [np.abs(again.batch(torch.arange(20)).x.numpy() - row.numpy()).sum(1).min() for row in train.store.values]
    assert max(own) < 1e-6 and data.whole(table[:1], scaling=train.scaling).fingerprint
    with pytest.raises(UserError, match="2 features, expected 3"):
        data.whole(table[:, :2], scaling=train.scaling)


@pytest.mark.parametrize("total", [3, 4, 5])
def test_three_examples_are_enough(total):
    """Each split has at least one, whatever the shares."""
    splits = load(GREY[:total], valid=0.45, test=0.5)
    assert min(len(p) for p in parts_of(splits)) >= 1 and sum(len(p) for p in parts_of(splits)) == total


def test_labels_of_a_pair():
    """Words, numbers with holes, and -1 for the unlabelled all end as 0, 1, ... and -1."""
    for labels in (["y", "x", ""] * 4, [7, 3, -1] * 4, [7.0, 3.0, np.nan] * 4):
        splits = load((GREY, np.array(labels)))
        every = torch.cat([p.labels for p in parts_of(splits)])
        assert every.dtype == torch.int64
        assert sorted(every.tolist()) == [-1] * 4 + [0] * 4 + [1] * 4
        assert splits.train.label_names == (["x", "y"] if labels[0] == "y" else ["3", "7"])


def test_examples_that_have_a_label():
    """-1 is no label; the others keep their order."""
    part = load((GREY.repeat(5, 0), np.array((["a", "", "b"] * 2) * 10))).train
    known, labels = part.labelled()
    rows = (part.labels >= 0).nonzero()[:, 0]
    assert 0 < len(known) < len(part) and torch.equal(labels, part.labels[rows])
    assert torch.equal(known.batch(torch.arange(len(known))).x, part.batch(rows).x)
    with pytest.raises(UserError, match="no labels"):
        load(GREY).train.labelled()


def test_fingerprint_is_of_content_and_order(tmp_path):
    """The same pictures elsewhere keep it; one level more, another order or another shape changes it."""
    part = load(GREY).train
    a = part.fingerprint
    assert len(a) == 16 and a == load(GREY.copy()).train.fingerprint
    assert len({a, load(GREY[::-1]).train.fingerprint, load(GREY.transpose(0, 2, 1)).train.fingerprint}) == 3
    assert part.subset(torch.arange(len(part))).fingerprint == a != part.subset(torch.arange(3)).fingerprint
    before = {p.fingerprint for p in parts_of(load(GREY))}
    for i in range(12):  # one example lies in one split, and no other split notices
        changed = GREY.copy()
        changed[i, 0, 0] ^= 1
        assert len(before & {p.fingerprint for p in parts_of(load(changed))}) == 2
    write_folder(tmp_path / "here", GREY)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert load(tmp_path / "here").test.fingerprint == load(tmp_path / "there").test.fingerprint


def test_histogram_counts_levels():
    """Against NumPy's own histogram, per channel."""
    part = load(COLOUR).train
    levels = ((part.batch(torch.arange(len(part))).x.double() + 1) * 128).floor().numpy()
    for channel in range(3):
        truth, _ = np.histogram(levels[:, channel], bins=256, range=(0, 256))
        assert part.histogram()[channel].tolist() == truth.tolist()


def test_long_histograms_look_at_evenly_spaced_examples():
    """No more than 5,000 examples are read, from the first to the last."""
    part = load(np.arange(24_000, dtype=np.uint16)[:, None, None, None]).train
    seen = part.histogram().nonzero()[:, 1]
    assert part.histogram().sum() == 5000
    levels = part.store.raw(torch.arange(len(part))).flatten()
    assert seen[0] == levels.min() and seen[-1] == levels.max() and seen.diff().max() < 60


REAL = Path(os.environ.get("DIFFREP_DATA", "/nonexistent"))


@pytest.mark.skipif(not (REAL / "mnist").exists(), reason="set DIFFREP_DATA to a folder with mnist/ in hub layout")
def test_mnist_has_its_published_statistics():
    """60,000 + 10,000 pictures; mean .1307 and standard deviation .3081 of the training pixels in [0, 1]."""
    splits = load(REAL / "mnist")
    assert [len(p) for p in parts_of(splits)] == [54_000, 6_000, 10_000] and splits.train.shape == (1, 28, 28)
    pixels = (
        torch.cat([splits.train.store.raw(torch.arange(54_000)), splits.valid.store.raw(torch.arange(6_000))]) / 255
    )
    assert pixels.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert pixels.std().item() == pytest.approx(0.3081, abs=1e-4)


@pytest.mark.parametrize("most", [1, 2, 7, 19, 20, 100])
def test_spread_positions_reach_both_ends(most):
    """Rising, none twice, from the first to the last (the first alone where one is asked for); all where all are."""
    examples = examples_of(np.zeros((20, 3)))
    places = examples.evenly(most)
    assert len(places) == min(most, 20) and int(places[0]) == 0
    assert (places.diff() > 0).all() and (most == 1 or int(places[-1]) == 19)
