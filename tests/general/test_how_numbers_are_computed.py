"""Oracle 4: batch size, order and chunks change no number, and every mean weighs examples."""

import numpy as np
import pytest
import torch

from diffrep.data import Stream
from diffrep.evaluation.layers import features, of_model
from diffrep.measures.distance import sampled
from diffrep.measures.evaluate import codes
from diffrep.probes.hypersphere import uniformity
from diffrep.probes.neighbours import knn
from diffrep.probes.quality import precision_recall
from diffrep.probes.references import pixels
from tiny import base


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
    assert torch.equal(sampled(run, 130, "ddim", 2, 0)[:40], sampled(run, 40, "ddim", 2, 0))


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
