"""Fine-tuning: it begins as the frozen probe, touches a copy, and chooses nothing."""

import numpy as np
import pytest
import torch
from torch import nn

from diffrep.config import Settings, override
from diffrep.errors import UserError
from diffrep.evaluation.finetune import codes, encoder_of, finetune, frozen
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.probes.few_labels import drawn, few_labels
from diffrep.probes.fitting import accuracy
from small import NARROW

pytestmark = pytest.mark.slow

SMALL = [*NARROW, "code.dim=4"]


def model_of(method: str):
    return build(override(Settings(), [f"method={method}", *SMALL]), Facts((1, 8, 8), 17)).eval()


def labelled(size: int, classes: int, seed: int):
    """Pictures whose brightness says the class, with noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(size) % classes
    x = (y / classes - 0.5)[:, None, None, None] + 0.5 * torch.randn(size, 1, 8, 8, generator=generator)
    return x, y


@pytest.mark.parametrize("classes", [2, 3])
def test_the_frozen_classifier_is_the_probe_of_few_labels(classes):
    """Two routes to one number, of scikit-learn on arrays and of a network that ends in the same head."""
    encoder = encoder_of(model_of("drl"))
    (x, y), test = labelled(60, classes, 0), labelled(90, classes, 1)
    asked = few_labels((codes(encoder, x), y.numpy()), (codes(encoder, test[0]), test[1].numpy()), 4, repeats=3)
    each = [accuracy(frozen(encoder, (x[rows], y[rows]), x), test) for rows in drawn(y.numpy(), 4, 3, 0)]
    assert sum(each) / 3 == pytest.approx(asked["accuracy"])
    assert max(each) < 1


def test_a_class_without_a_label_has_no_share():
    """Labels of classes 0 and 2 alone: class 1 has no probability in the softmax that is trained."""
    x, y = labelled(60, 2, 0)
    classifier = frozen(nn.Flatten(), (x[:8], 2 * y[:8]), x)
    shares = classifier(x).softmax(1)
    assert shares.shape == (60, 3) and float(shares[:, 1].max()) == 0.0


def test_with_an_encoder_that_learns_nothing_the_codes_are_the_frozen_ones():
    """At rate zero only the head is left to move."""
    encoder = encoder_of(model_of("vdrl"))
    few, every = labelled(24, 3, 0), labelled(60, 3, 1)[0]
    still = finetune(encoder, few, every, rate=0.0, steps=20)
    assert np.array_equal(codes(still.encoder, every), codes(encoder, every))
    assert not torch.equal(still.head.weight, frozen(encoder, few, every).head.weight)
    moved = finetune(encoder, few, every, rate=1e-2, steps=20)
    assert not np.array_equal(codes(moved.encoder, every), codes(encoder, every))


def test_an_encoder_that_was_frozen_in_training_is_tuned_too():
    """The encoder of `random-encoder` takes no gradient there; "fine-tuned" would be the frozen probe again."""
    encoder = encoder_of(model_of("random-encoder"))
    start = frozen(encoder, labelled(24, 3, 0), labelled(60, 3, 1)[0])
    start(labelled(4, 3, 2)[0]).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in start.encoder.parameters())
    assert not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("method", ["drl", "tvdrl", "vae"])
def test_the_trained_model_is_left_bit_identical(method):
    """A run is measured many times; no measurement may change it."""
    model = model_of(method)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    few, every = labelled(12, 3, 0), labelled(12, 3, 1)[0]
    tuned = finetune(encoder_of(model), few, every, rate=1e-2, steps=4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.training and all(p.requires_grad for p in model.parameters())
    own = {p.data_ptr() for p in model.parameters()}
    for classifier in (tuned, frozen(encoder_of(model), few, every)):
        assert not own & {p.data_ptr() for p in classifier.parameters()}


def test_training_the_encoder_finds_what_the_frozen_code_hides():
    """The code is the first number of x and the class stands in the second: the encoder must turn to it."""
    generator = torch.Generator().manual_seed(0)

    def part(size):
        y = torch.arange(size) % 2
        return torch.randn(size, 2, generator=generator) + torch.stack([0.3 * y, 4.0 * y - 2], 1), y

    encoder = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[1.0, 0.0]]))
    few, every, test = part(40), part(100)[0], part(200)
    assert accuracy(frozen(encoder, few, every), test) < 0.7
    assert accuracy(finetune(encoder, few, every, rate=0.03, steps=200), test) > 0.9
    assert encoder.weight.tolist() == [[1.0, 0.0]]


def test_the_same_seed_gives_the_same_classifier():
    """The order of the examples is all that is drawn, and the seed says it."""
    encoder, few, every = encoder_of(model_of("drl")), labelled(100, 3, 0), labelled(60, 3, 1)[0]
    one, again, other = (finetune(encoder, few, every, steps=5, seed=seed).head.weight for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_a_time_conditioned_encoder_reads_at_its_time():
    """The code that is tuned is the model's own at that t."""
    model, (x, _) = model_of("tdrl"), labelled(5, 2, 0)
    for t in (0.5, 0.2):
        torch.testing.assert_close(encoder_of(model, t)(x), model.encode(x, t).mean)


def test_what_cannot_be_tuned_says_why():
    """No encoder; one class."""
    with pytest.raises(UserError, match="no encoder"):
        encoder_of(model_of("ddpm"))
    x, y = labelled(6, 2, 0)
    with pytest.raises(UserError, match="two classes"):
        frozen(encoder_of(model_of("drl")), (x, 0 * y), x)
