"""A step in bf16 and in fp16 is the step in float32, but for the rounding of its networks."""

import pytest
import torch

from diffrep.config import Settings, override
from diffrep.methods.catalog import METHODS, build
from diffrep.shapes import Batch, Draws, Facts
from diffrep.testing import SMALL

SCALE = 2**10  # of the loss, as the engine scales it: small gradients are zero in fp16
BITS = {torch.bfloat16: 8, torch.float16: 11}  # of a significand; a number is off by 2^-bits of it at most


def step(method: str, precision: torch.dtype | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each player, nats per number, and the gradient of all parameters, as the engine takes them."""
    facts = Facts((1, 8, 8), 4, classes=3)
    model = build(override(Settings(), [f"method={method}", *SMALL]), facts, warn=False)
    generator = torch.Generator().manual_seed(1)
    x = (2 * torch.randint(0, 4, (16, 1, 8, 8), generator=generator) + 1) / 4 - 1
    losses = []
    for player in model.players():
        torch.manual_seed(0)
        batch = Batch(x, torch.arange(16), torch.arange(16) % 3, Draws.of(0))
        with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
            terms = model.loss(batch, player)
        assert all(nats.dtype == torch.float32 for nats in terms.values()), "terms are summed in float32"
        losses.append(torch.stack([*terms.values()]).sum(0).mean() / 64)
        (SCALE * losses[-1]).backward()
    gradient = torch.cat([p.grad.flatten() / SCALE for p in model.parameters() if p.grad is not None])
    return torch.stack(losses).detach(), gradient


@pytest.mark.slow
@pytest.mark.parametrize("precision", BITS, ids=str)
@pytest.mark.parametrize("method", [name for name in METHODS if name != "random-encoder"])
def test_a_step_is_that_of_float32_but_for_rounding(method, precision):
    """Losses within eight roundings of a number; gradients in nearly the same direction, and nearly as long."""
    (exact, slope), (loss, low) = step(method, None), step(method, precision)
    rounding = 2.0 ** -BITS[precision]
    torch.testing.assert_close(loss, exact, rtol=8 * rounding, atol=8 * rounding)
    assert float((low - slope).norm() / slope.norm()) < 16 * rounding
    assert not torch.equal(low, slope)  # the networks did run in it
