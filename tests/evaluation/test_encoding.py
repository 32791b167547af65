"""Codes of a split: in its order, whatever the batches are; and samples that a seed names."""

import numpy as np
import pytest
import torch

from diffrep.config import Settings, override
from diffrep.errors import UserError
from diffrep.evaluation.encoding import encode_batches, encode_split
from diffrep.methods.catalog import build
from diffrep.shapes import Facts
from oracles import examples_of

SMALL = ["decoder.width=4", "encoder.width=4", "encoder.depth=1", "code.dim=3"]


def model_of(method: str):
    return build(override(Settings(), [f"method={method}", *SMALL]), Facts((6,), None)).train()


@pytest.fixture
def examples():
    return examples_of(np.random.default_rng(0).normal(size=(7, 6)))


def test_codes_come_in_the_order_of_the_split(examples):
    """Batches of any size give the codes that single examples have, rows pick some, and the mode comes back."""
    model = model_of("vdrl")
    code = encode_split(model, examples, batch=3)
    assert model.training
    model.eval()
    for i in range(7):
        alone = model.encode(examples.batch(torch.tensor([i])).x)
        torch.testing.assert_close(code.mean[i], alone.mean[0])
        torch.testing.assert_close(code.spread[i], alone.spread[0])
    ((chunk, (some,)),) = encode_batches(model, examples, rows=torch.tensor([5, 2]))
    assert chunk.index.tolist() == [5, 2]
    torch.testing.assert_close(some.mean, code.mean[[5, 2]])


def test_a_code_of_each_time(examples):
    """Two routes: several times at once, and each on its own."""
    model, both = model_of("tdrl"), (0.2, 0.8)
    at_once = torch.cat([torch.stack([c.mean for c in codes]) for _, codes in encode_batches(model, examples, both)])
    for codes, t in zip(at_once, both, strict=True):
        torch.testing.assert_close(codes, encode_split(model, examples, t).mean)
    with pytest.raises(UserError, match="does not depend on t"):
        encode_split(model_of("drl"), examples, 0.5)


def test_a_seed_names_samples():
    """The same call gives the same samples, as the docstring says; another seed gives others."""
    model = model_of("drl").eval()
    one, again, other = (model.sample(3, steps=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(model.sample(3, steps=2), one)
