"""Autoencoders: what is hidden is what is learned, what is shown to the encoder, and learned priors."""

import pytest
import torch
from torch import nn

from diffrep import config
from diffrep.codes.posteriors import Deterministic
from diffrep.codes.priors import FittedNormal
from diffrep.data.views import noisy
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.models.autoencoder import Autoencoder
from diffrep.nets.decoders import MLPGenerator
from diffrep.nets.encoders import MLPEncoder
from diffrep.shapes import Batch, Draws


def made(bins=None, **rest) -> Autoencoder:
    torch.manual_seed(0)
    posterior = Deterministic(MLPEncoder((6,), 16, 1), 3)
    return Autoencoder((6,), bins, posterior, MLPGenerator((6,), 3, 16, 1), FittedNormal(3), **rest)


def first_three(x, draws):
    """Hides the first half of the numbers."""
    return (torch.arange(6) < 3).expand_as(x)


@pytest.mark.parametrize("bins", [None, 8])
def test_the_loss_of_a_masked_autoencoder_ignores_what_is_seen(bins):
    """Its gradient to the guess is zero at visible numbers, and it is that of a plain one on the hidden part."""
    model = made(bins, hide=first_three)
    x = (2 * torch.randint(0, 8, (5, 6)) + 1) / 8 - 1
    guess = torch.randn(5, 6, requires_grad=True)
    whole, counted = model.surprise(x, guess), model.surprise(x, guess, first_three(x, None))
    (gradient,) = torch.autograd.grad(counted.sum(), guess)
    assert (gradient[:, 3:] == 0).all() and (gradient[:, :3] != 0).all()
    rest = model.surprise(x, guess, ~first_three(x, None))
    torch.testing.assert_close(counted + rest, whole)


def test_a_masked_autoencoder_is_not_told_what_it_must_guess():
    """Other hidden values give the same code and the same guess: the loss moves by the target alone."""
    model, x = made(hide=first_three), torch.randn(5, 6)
    model.loss(Batch(x, torch.arange(5), draws=Draws.of(0)))
    z = model.last[1]
    other = torch.cat([torch.randn(5, 3), x[:, 3:]], 1)
    nats = model.loss(Batch(other, torch.arange(5), draws=Draws.of(0)))["reconstruction"]
    assert torch.equal(model.last[1], z)
    torch.testing.assert_close(nats, model.surprise(other, model.generator(z), first_three(x, None)))
    shown = torch.cat([torch.zeros(5, 3), x[:, 3:]], 1)
    torch.testing.assert_close(z, model.posterior(shown).mean)


def test_a_view_is_for_the_encoder_alone():
    """A denoising autoencoder is asked for the clean x: by hand from the same draws."""
    model, x = made(view=noisy(0.5)), torch.randn(5, 6)
    nats = model.loss(Batch(x, torch.arange(5), draws=Draws.of(2)))["reconstruction"]
    z = model.posterior(x + 0.5 * Draws.of(2).normal(5, 6)).mean
    torch.testing.assert_close(nats, model.surprise(x, model.generator(z)))


def vae(name: str, *changes: str):
    words = [f"method={name}", "code.dim=3", "encoder.width=4", "decoder.width=4", *changes]
    return build(config.override(config.Settings(), words), Facts((5,), None))


@pytest.mark.parametrize("kind", ["mixture", "flow", "diffusion"])
def test_a_vae_trains_the_prior_that_it_is_given(kind):
    """Its rate has a gradient to the prior, which is a group of its own."""
    model = vae("vae", f"prior.kind={kind}")
    model.loss(Batch(torch.randn(8, 5), torch.arange(8), draws=Draws.of(0)))["rate"].mean().backward()
    prior = model.players()["model"]["prior"]
    assert prior and all(p.grad is not None for p in prior) and sum(float(p.grad.abs().sum()) for p in prior) > 0
    assert isinstance(model.prior, nn.Module) and model.sample(2, Draws.of(0), steps=2).shape == (2, 5)


def test_beta_is_four_where_nobody_says_otherwise():
    """beta-vae is the vae with another price of a nat, which code.beta sets."""
    batch = Batch(torch.randn(8, 5), torch.arange(8), draws=Draws.of(0))
    terms = {
        name: model.loss(Batch(batch.x, batch.index, draws=Draws.of(0)))
        for name, model in (("1", vae("vae")), ("4", vae("beta-vae")), ("7", vae("beta-vae", "code.beta=7.0")))
    }
    for beta in ("4", "7"):
        torch.testing.assert_close(terms[beta]["rate"], float(beta) * terms["1"]["rate"])
        torch.testing.assert_close(terms[beta]["reconstruction"], terms["1"]["reconstruction"])
