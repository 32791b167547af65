"""Oracle 4: batch size, order, chunks, threads and workers change no number, and every mean weighs examples."""

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffrep.data import Stream
from diffrep.data.batches import batches
from diffrep.denoising.samplers import Sampling
from diffrep.evaluation.layers import features, of_model
from diffrep.measures.distance import sampled
from diffrep.measures.evaluate import codes, evaluate
from diffrep.probes.hypersphere import uniformity
from diffrep.probes.neighbours import knn
from diffrep.probes.quality import precision_recall
from diffrep.probes.references import pixels
from diffrep.shapes import Draws
from every_measure import ROWS, leaves, splits
from tiny import base, copy_of, same, train, weights

# halves, pairs and blocks of examples, drawn by their places; neighbours among pictures that are equally far
BY_PLACE = re.compile("^/(dci|sap|alignment|kid)|/spreading-")


def alike(draws: Draws, draw, shape: tuple[int, ...]) -> torch.Tensor:
    """The same numbers for every example, whatever stands beside it, in place of those of `Draws._slice`."""
    return draw(shape[1:], generator=torch.Generator().manual_seed(len(shape))).expand(shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_measure_is_the_same_however_it_is_computed(name, tmp_path, monkeypatch):
    """Where each example has the same noise, a result depends on the set of examples alone: batches of five (the last
    of them is smaller) and the test split backwards give the same to rounding."""
    row, parts = ROWS[name], splits()
    run = base(row.method)  # which other tests share, so it is trained with its own noise
    monkeypatch.setattr(Draws, "_slice", alike)
    monkeypatch.setattr(Draws, "stratified", lambda draws, count: torch.full((count,), 0.37))
    monkeypatch.setattr("diffrep.evaluation.pilot.EXAMPLES", 24)  # of the 24 that there are
    first, second = (copy_of(run, tmp_path / place) for place in ("one", "two"))
    one = dict(leaves(row.call(first, parts)))

    def of_five(examples, size, *rest):
        return batches(examples, min(size, 5), *rest)

    for module in [m for n, m in sys.modules.items() if n.startswith("diffrep.") and not n.endswith(".pilot")]:
        if vars(module).get("batches") is batches:
            monkeypatch.setattr(module, "batches", of_five)
    monkeypatch.setattr("diffrep.evaluation.encoding.AT_ONCE", 5)
    back = parts.test.subset(torch.arange(len(parts.test)).flip(0))
    two = dict(leaves(row.call(second, replace(parts, test=back))))
    for place, value in one.items():
        if isinstance(value, float) and not BY_PLACE.search(place):
            assert two[place] == pytest.approx(value, rel=1e-3, abs=1e-5), place
        elif not isinstance(value, float) and place != "/key":
            assert two[place] == value, place


@pytest.mark.slow
def test_threads_do_not_show(tmp_path):
    """Two threads in place of one: what a measure says of a run is the same to rounding."""
    run, said = base("ae"), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            said.append(dict(leaves(evaluate(copy_of(run, tmp_path / str(threads)), splits()))))
        finally:
            torch.set_num_threads(1)
    assert all(said[1][k] == (pytest.approx(v, rel=1e-4) if isinstance(v, float) else v) for k, v in said[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ae", "simclr"])
def test_workers_read_what_one_process_reads(method):
    """Two workers that read ahead: the same weights, bit for bit."""
    assert same(weights(base(method)), weights(train(method, "train.workers=2"))) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ae", "drl", "vae-vdm", "simclr", "tdrl"])
def test_codes_do_not_depend_on_batches_or_order(method):
    """Batches of 5 and of all, and the examples in reverse."""
    run = base(method)
    test = run.data.test
    whole = codes(run.model, test)
    np.testing.assert_allclose(codes(run.model, test, batch=5), whole, rtol=1e-4, atol=1e-5)
    back = torch.arange(len(test)).flip(0)
    np.testing.assert_allclose(codes(run.model, test.subset(back))[::-1], whole, rtol=1e-4, atol=1e-5)


def test_chunks_do_not_show():
    """Metrics and samples: chunks of any size, and samples of a shorter call as those of a longer."""
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    assert uniformity(z, chunk=7) == pytest.approx(uniformity(z))
    a, b = torch.from_numpy(z[:30]), torch.from_numpy(z[30:])
    assert precision_recall(a, b, chunk=4) == precision_recall(a, b)
    parts = (z[:40], y[:40]), (z[40:50], y[40:50]), (z[50:], y[50:])
    assert knn(*parts, chunk=3) == knn(*parts)
    run = base("dsm")
    np.testing.assert_array_equal(pixels(run.data.test, chunk=5), pixels(run.data.test))
    assert torch.equal(sampled(run, 130, Sampling("ddim", 2), 0)[:40], sampled(run, 40, Sampling("ddim", 2), 0))


def test_layers_read_the_same_however_they_are_batched():
    """Of the middle of a network: one eps for each example, so equal where the batch is one."""
    run = base("ddpm")
    probed = of_model(run.model)
    one = features(probed, run.data.test, 2.0, batch=100)
    assert all(np.array_equal(one[name], features(probed, run.data.test, 2.0, batch=200)[name]) for name in one)


def test_processes_together_see_what_one_would():
    """The parts of a batch, one after the other, are the batch."""
    train = base("dsm").data.train
    whole = Stream(train, 16, 3).at(32).index
    parts = [Stream(train, 16, 3, part, 4).at(32).index for part in range(4)]
    assert torch.equal(torch.cat(parts), whole)
