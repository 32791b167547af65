"""Small parts of what reads data and of what is said of runs, each with an answer that is worked out by hand."""

import math
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse

from diffrep import data
from diffrep.data.readers.arrays import _flattened
from diffrep.data.readers.cells import SparseRows
from diffrep.data.reading import Reading
from diffrep.data.values import Extent, scaled
from diffrep.measures.probe import _targets
from diffrep.pages.explorer import Explorer
from diffrep.probes.neighbours import spreading
from diffrep.runs.callbacks import Patience
from diffrep.runs.card import DataCard, _former_splits
from diffrep.studies.compare import compare
from tiny import base, train


class Group(dict):
    """A group of HDF5."""

    attrs: dict


def test_any_cells_of_a_sparse_file_are_their_rows():
    """Every choice of rows of six, with gaps or without, is that of the dense matrix; one row is empty."""
    dense = np.arange(30.0).reshape(6, 5) % 4
    dense[2] = 0
    whole = sparse.csr_matrix(dense)
    group = Group(data=whole.data, indices=whole.indices, indptr=whole.indptr)
    group.attrs = {"shape": dense.shape}
    stored = SparseRows(group)
    for size in range(7):
        for rows in combinations(range(6), size):
            chosen = np.array(rows, dtype=np.int64)
            assert np.array_equal(stored[chosen].toarray(), dense[chosen]), rows


@pytest.mark.parametrize("last, classes", [([0, 0, 1], True), ([0, 0, 0], False), ([0, 1, 1], False)])
def test_labels_are_one_in_k_where_each_example_has_one(last, classes):
    """One of three is a class; a row of none, or of two, makes three numbers of an example."""
    columns, reading = _flattened({"y": np.array([[1, 0, 0], [0, 1, 0], last])}, "a.npz", Reading())
    assert columns["y"].tolist() == [0, 1, 2] if classes else sorted(columns) == ["y_0", "y_1", "y_2"]
    assert (reading == Reading()) == classes


@pytest.mark.parametrize(
    "kind, high, said",
    [
        ("int64", 511, "data.levels=512 for 9 bits"),
        ("int64", 512, "data.levels=1024 for 10 bits"),
        ("int64", 1023, "data.levels=1024 for 10 bits"),
        ("uint16", 255, "data.levels=256 if they have 8 bits"),
        ("uint16", 256, "data.levels=512 if they have 9 bits"),
        ("uint16", 4095, "data.levels=4096 if they have 12 bits"),
        ("uint16", 1, "data.levels=2 if they have 1 bit."),
    ],
)
def test_levels_that_are_proposed_hold_the_largest_number(kind, high, said):
    reading = scaled(Extent(0.0, float(high), True, kind), "x", Reading())
    assert any(said in doubt for doubt in reading.doubts() if doubt)


def test_numbers_of_classes_are_regressed_on_with_the_first_of_them():
    """Class 0 is a number as the others are; -1 is none."""
    columns = [np.array([0, 2, -1]), np.array([1]), np.array([0])]
    (train_, valid, test), numbers, _ = _targets(columns, "label", ("regression",), given=["0", "1", "2"])
    assert numbers and train_[:2].tolist() == [0.0, 2.0] and math.isnan(train_[2])
    assert (valid.tolist(), test.tolist()) == ([1.0], [0.0])


def test_compared_runs_state_their_own_facts():
    """Each side is of its own run: method, seed, the fingerprint of its test split."""
    runs = [base("vae"), train("ae", "seed=3", "train.budget=16ex")]
    for run, side in zip(runs, compare([run.directory for run in runs]).runs, strict=True):
        assert (side.method, side.seed) == (run.settings.method, run.settings.seed)
        assert side.fingerprint == run.card.fingerprints["test"]


def test_the_noise_axis_of_the_explorer_goes_from_noise_to_data():
    noise = base("vae-vdm").model.noise
    explorer = SimpleNamespace(diffusion=SimpleNamespace(noise=noise), run=SimpleNamespace(device=torch.device("cpu")))
    low, high = Explorer.log_snr_ends.fget(explorer)
    assert low < high
    assert low == pytest.approx(float(noise.log_snr(torch.ones(1))), abs=1e-4)
    assert high == pytest.approx(float(noise.log_snr(torch.zeros(1))), abs=1e-4)


def test_patience_looks_with_the_same_noise_each_time():
    """The same weights have the same number, however long it has waited; so three lines later it ends."""
    run = base("vae")
    patience = Patience(run.model, run.splits().valid, 3)
    seen = []
    for step in range(3):
        seen.append({"step": step, "watch": {}})
        patience.on_log(seen[-1])
    assert len({line["watch"]["valid"] for line in seen}) == 1 and patience.waited == 2
    with pytest.raises(Exception, match="was best 3 logged lines ago"):
        patience.on_log({"step": 3, "watch": {}})


def test_equal_examples_of_a_run_come_back_one_by_one():
    """Every picture is there three times with other labels: each is restored once. Where one is gone, so is the cut."""
    x = np.repeat(np.eye(4, 9, dtype=np.uint8).reshape(4, 3, 3) * 255, 3, axis=0)
    splits, every = data.load((x, np.arange(12))), data.whole((x, np.arange(12)))
    former = _former_splits(every, DataCard.of(splits))
    assert sorted(k for split in former for k in split.labels.tolist()) == [*range(12)]
    fewer = data.whole((x[1:], np.arange(11)), reading=every.reading)
    assert _former_splits(fewer, DataCard.of(splits)) is None


def test_the_labels_of_a_spread_are_those_of_its_classes():
    """Two classes, two labels each: four, although most of training has none."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.array([0, 1] * 6 + [-1] * 28)
    said = spreading((x, y), (x[:10], y[:10]), 2, repeats=2)
    assert (said["train_examples"], said["per_class"], said["examples"]) == (4, 2, 10)
