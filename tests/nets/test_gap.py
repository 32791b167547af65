"""PDAE's two decoders: who learns from what, and what each of them says."""

import pytest
import torch

from diffrep import config
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import MLPDecoder
from diffrep.nets.gap import Filled
from diffrep.shapes import Batch, Draws


def network() -> Filled:
    torch.manual_seed(0)
    return Filled(MLPDecoder((5,), 16, 1), MLPDecoder((5,), 16, 1, conditioning=Conditioning(3)))


def test_the_sum_where_there_is_a_code_and_the_plain_one_where_there_is_none():
    """By hand, for examples with and without a code side by side."""
    net, x_t, log_snr, z = network(), torch.randn(4, 5), torch.linspace(-2, 2, 4), torch.randn(4, 3)
    drop = torch.tensor([True, False, True, False])
    plain, gap = net.plain(x_t, log_snr), net.gap(x_t, log_snr, z)
    torch.testing.assert_close(net(x_t, log_snr), plain)
    torch.testing.assert_close(net(x_t, log_snr, z), plain + gap)
    torch.testing.assert_close(net(x_t, log_snr, z, drop=drop), torch.where(drop[:, None], plain, plain + gap))


@pytest.mark.parametrize("shape, bins", [((1, 8, 8), 17), ((5,), None)])
def test_the_plain_decoder_learns_nothing_from_examples_with_a_code(shape, bins):
    """And the others teach nothing to encoder and gap: each half of a batch has gradients of its own."""
    settings = config.override(config.Settings(), ["method=pdae", "decoder.width=4", "encoder.width=4", "code.dim=3"])
    model = build(settings, Facts(shape, bins))
    step = model.noised(Batch(torch.rand(16, *shape), torch.arange(16), draws=Draws.of(0)))
    nats = model.terms["denoising"](step)
    assert 0 < int(step.kept.sum()) < 16
    for with_code in (True, False):
        model.zero_grad(set_to_none=True)
        (nats * (step.kept == with_code)).sum().backward(retain_graph=True)
        size = {
            part: sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)
            for part, module in (("plain", model.denoiser.network.plain), ("gap", model.denoiser.network.gap))
        } | {"code": sum(float(p.grad.abs().sum()) for p in model.posterior.parameters())}
        assert (size["plain"] == 0) == with_code
        assert (size["gap"] == 0) == (size["code"] == 0) == (not with_code)
