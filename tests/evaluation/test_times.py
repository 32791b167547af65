"""Codes at several times: combined by hand, and together where each holds a part."""

import numpy as np
import pytest
import torch

from diffrep.config import Settings, override
from diffrep.errors import UserError
from diffrep.evaluation import times as over_times
from diffrep.evaluation.times import WAYS, codes_over_times, combined, combined_linear, even_times, standardised
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.probes.linear import linear
from oracles import examples_of

pytestmark = pytest.mark.slow


def parts_of(times: int = 2, sizes=(400, 150, 200)):
    """Codes (N, k, 2) whose first number at each time is the sign of one bit; the class is all the bits together."""
    generator = torch.Generator().manual_seed(0)

    def part(size: int):
        bits = torch.randint(0, 2, (size, times), generator=generator)
        codes = torch.stack([2.0 * bits - 1, torch.zeros(size, times)], 2)
        codes = codes + 0.3 * torch.randn(codes.shape, generator=generator)
        return codes, (bits * 2 ** torch.arange(times)).sum(1)

    return tuple(part(size) for size in sizes)


@pytest.mark.parametrize("way", ["concat", "gru", "transformer"])
def test_several_times_together_hold_what_none_holds_alone(way):
    """Each time tells one of two bits, so alone it names the one of four classes in half of the cases; together they
    tell all: every way that keeps them apart must find it."""
    parts = parts_of()
    alone = [combined("concat", tuple((c[:, [i]], y) for c, y in parts), epochs=15)["accuracy"] for i in range(2)]
    together = combined(way, parts, epochs=50)
    assert max(alone) < 0.65 and together["accuracy"] > 0.95
    assert together["valid_accuracy"] > 0.9 and together["spread"] is None


def test_a_mean_loses_which_time_said_what():
    """Of two bits their mean knows how many are set, not which: three of four classes at best."""
    assert 0.6 < combined("mean", parts_of(), epochs=50)["accuracy"] < 0.85


def test_mean_and_concatenation_by_hand():
    """The linear probe on arrays put together with numpy."""
    parts = parts_of()
    arrays = [(codes.numpy(), y.numpy()) for codes, y in parts]
    by_mean = linear(*(((c[:, 0] + c[:, 1]) / 2, y) for c, y in arrays))
    by_side = linear(*((np.hstack([c[:, 0], c[:, 1]]), y) for c, y in arrays))
    for way, result in (("mean", by_mean), ("concat", by_side)):
        said = combined_linear(way, parts)
        assert said["accuracy"] == pytest.approx(result["accuracy"]) and said["se"] == result["se"]


@pytest.mark.parametrize("way", WAYS)
def test_a_fit_looks_at_the_test_split_once(way):
    """Trap 7: with other test labels the network stays, so that the answers to both sets of labels add up to one."""
    train, valid, test = parts_of(1, (60, 40, 50))
    opposite = (test[0], 1 - test[1])
    first, second = (combined(way, (train, valid, part), epochs=2) for part in (test, opposite))
    assert first["accuracy"] + second["accuracy"] == pytest.approx(1)
    assert first["valid_accuracy"] == second["valid_accuracy"]


def test_seeds_are_averaged_and_the_error_is_that_of_the_examples(monkeypatch):
    """Two fits that answer 0 and 1 to two classes, half and half: each example is right in one of two fits, so
    examples do not differ and Wilson's half interval of n = 10 is 1 / 2n / (1 + 1 / n) = 1 / 22; fits differ where
    classes are uneven."""
    answers = iter([0, 1])
    monkeypatch.setattr(over_times, "predicted", lambda network, x: torch.full((len(x),), next(answers)))
    train, valid, _ = parts_of(1, (30, 20, 10))
    said = combined("concat", (train, valid, (torch.zeros(10, 1, 2), torch.tensor([0] * 7 + [1] * 3))), 1, seeds=2)
    assert (said["accuracy"], said["se"]) == (0.5, pytest.approx(1 / 22))
    assert said["spread"] == pytest.approx(0.4 / 2**0.5)


def test_standardised_by_the_training_split():
    """Its mean is 0 and deviation 1 at each time; other splits are moved by the same numbers; a constant stays 0."""
    codes = torch.tensor([[[1.0, 5.0]], [[5.0, 5.0]]])
    y = torch.tensor([0, 1])
    train, valid, _ = standardised(((codes, y), (codes + 2, y), (codes, y)))
    assert train[0].tolist() == [[[-1.0, 0.0]], [[1.0, 0.0]]] and valid[0].tolist() == [[[0.0, 2.0]], [[2.0, 2.0]]]


def test_even_times_are_middles():
    """Neither end is taken, where a code is all data or all noise."""
    assert even_times(4) == [0.125, 0.375, 0.625, 0.875]


def test_codes_are_the_models_at_each_time():
    """Two routes: all at once, and each time asked for on its own; a code without t has no times."""
    small = ["encoder.width=8", "decoder.width=8", "code.dim=4"]
    examples = examples_of(np.random.default_rng(0).integers(0, 17, (5, 1, 8, 8)).astype(np.uint8), 17)
    model = build(override(Settings(), ["method=tdrl", *small]), Facts((1, 8, 8), 17))
    done = []
    codes = codes_over_times(model, examples, [0.2, 0.8], batch=3, progress=done.append)
    assert codes.shape == (5, 2, 4) and done == [3, 2]
    for i, t in enumerate((0.2, 0.8)):
        torch.testing.assert_close(codes[:, i], model.encode(examples.batch(torch.arange(5)).x, t).mean)
    assert not torch.allclose(codes[:, 0], codes[:, 1])
    with pytest.raises(UserError, match="tdrl"):
        codes_over_times(build(override(Settings(), ["method=drl", *small]), Facts((1, 8, 8), 17)), examples, [0.5])
