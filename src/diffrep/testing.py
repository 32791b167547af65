"""The tests that every method of diffrep passes, to be run on your own method."""

from __future__ import annotations

import torch

from diffrep.config import Settings, override
from diffrep.methods.catalog import Method, Recipe, build, name_of
from diffrep.shapes import Batch, Draws, Facts, Shape

SMALL = ("decoder.width=4", "decoder.multipliers=[1, 2]", "encoder.width=4", "code.dim=3")
SHAPES: dict[Shape, int | None] = {(1, 6, 5): 4, (2, 9): None, (5,): None}  # a picture, a signal, a vector


def check_method(recipe: str | Method | Recipe, shapes: dict[Shape, int | None] | None = None, *changes: str) -> None:
    """Raises an AssertionError that says which of the checks below a method fails.

    shapes: shape of an example -> number of grey levels (None: continuous); left out: a picture, a signal and a vector.
    changes: settings, such as "code.dim=4".

    Checked: the loss is one finite number of nats for each example; at the first step every parameter has a finite
    gradient and belongs to one group of one player, and the gradient reaches the encoder; a code is (B, code.dim),
    whatever stands beside an example; samples are finite and have the data's shape; the same seed gives the same
    weights.
    """
    settings = override(Settings(), [f"method={name_of(recipe)}", *SMALL, *changes])
    for shape, bins in (SHAPES if shapes is None else shapes).items():
        facts = Facts(shape, bins, classes=3)
        model, again = build(settings, facts, warn=False), build(settings, facts, warn=False).state_dict()
        for name, value in model.state_dict().items():
            assert torch.equal(value, again[name]), f"{name} differs from build to build: draw weights by torch alone"
        batch = _batch(shape, bins)
        owned = []
        for player, groups in model.players().items():
            model.zero_grad(set_to_none=True)
            for term, nats in model.loss(_batch(shape, bins), player).items():
                assert nats.shape == (len(batch),), (
                    f"the term {term} is {tuple(nats.shape)}, expected one for each example"
                )
                assert nats.isfinite().all(), f"the term {term} is not finite"
            torch.stack([*model.loss(_batch(shape, bins), player).values()]).sum(0).mean().backward()
            for group, parameters in groups.items():
                for p in parameters:
                    assert p.grad is not None, f"a parameter {tuple(p.shape)} of {group} does not enter the loss"
                    assert p.grad.isfinite().all(), f"a gradient of {group} is not finite"
                reached = sum(float(p.grad.abs().sum()) for p in parameters if p.grad is not None)
                assert reached > 0, f"no gradient reaches {group} at the first step"
                owned += [id(p) for p in parameters]
        learned = [id(p) for p in model.parameters() if p.requires_grad]
        assert sorted(set(owned)) == sorted(learned), "parts leaves out a parameter of the model: nothing trains it"
        model.eval()
        if model.has_code:
            z = model.encode(batch.x).mean
            dim = settings.code.size(shape)
            assert z.shape == (len(batch), dim), f"codes are {tuple(z.shape)}, expected (B, code.dim)"
            torch.testing.assert_close(model.encode(batch.x[:1]).mean, z[:1], msg="a code depends on the batch")
        if model.prior is not None or not model.has_code:
            x = model.sample(2, Draws.of(0), steps=3)
            assert x.shape == (2, *shape) and x.isfinite().all(), f"samples are {tuple(x.shape)}, or not finite"


def _batch(shape: Shape, bins: int | None, size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, *shape, generator=generator)
    if bins:
        x = (2 * torch.randint(0, bins, x.shape, generator=generator) + 1) / bins - 1
    return Batch(x, torch.arange(size), label=torch.arange(size) % 3, draws=Draws.of(0))
