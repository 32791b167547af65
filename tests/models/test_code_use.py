"""How alive a code is, and what a decoder loses by another's: closed forms, and that watching changes nothing."""

import json
import math

import pytest
import torch
from torch import nn

from diffrep.codes.priors import StandardNormal
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import LinearGamma
from diffrep.denoising.parameterisations import EDM, X
from diffrep.models.autoencoder import Autoencoder
from diffrep.models.code_use import BANDS, MOST, DecoderStep, shuffle_gap
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.loss_weights import Constant, TargetRate
from diffrep.models.step_terms import denoise, rate
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import MLPDecoder
from diffrep.shapes import Batch, Draws
from oracles import ExactConditional, ExactNetwork, ExactPosterior, LinearGaussian
from runs_at_hand import SMALL, diffrep

ENDS = (-9.0, 5.0)  # gamma_0, gamma_1: log-SNR from 9 to -5
TRUTH = LinearGaussian.of(6, 3)


def model_of(network: nn.Module, parameterisation=None, drop: float = 0.0) -> DiffusionModel:
    denoiser = Denoiser(network, LinearGamma(*ENDS), parameterisation or X())
    return DiffusionModel(
        (6,),
        None,
        denoiser,
        Objective({"diffusion": denoise, "rate": rate}, Levels(likelihood), {"rate": TargetRate(5.0)}),
        Coding(ExactPosterior(TRUTH), StandardNormal(3), drop=drop),
    )


def batch(size: int, seed: int = 0) -> Batch:
    return Batch(TRUTH.data.draw(size, seed).float(), torch.arange(size), draws=Draws.of(seed))


def closed_form(low: float, high: float) -> float:
    """Nats between two log-SNRs that an ideal decoder loses by another's code.

    Its eps_hat moves by (alpha sigma / (alpha^2 n^2 + sigma^2)) W (z - z'), a move unrelated to its own error, and
    E|W (z - z')|^2 = 2 tr W'W: so the gap is the integral of s / (1 + s n^2)^2 tr W'W over log s.
    """
    n2 = TRUTH.noise**2
    return float((TRUTH.weights**2).sum()) / n2 * (1 / (1 + math.exp(low) * n2) - 1 / (1 + math.exp(high) * n2))


def test_the_gap_of_an_ideal_decoder_has_a_closed_form():
    """In each band, and in sum, within four standard errors over independent batches."""
    model, gaps = model_of(ExactConditional(TRUTH)), []
    for seed in range(20):
        model.loss(batch(2000, seed))
        gaps.append(shuffle_gap(model.denoiser, model.start, model.last, most=2000))
    edges = torch.linspace(-ENDS[1], -ENDS[0], 4).tolist()
    truth = {f"gap_nats_{name}": closed_form(edges[k], edges[k + 1]) for k, name in enumerate(BANDS)}
    truth["gap_nats"] = closed_form(edges[0], edges[-1])
    for name, nats in truth.items():
        values = torch.stack([gap[name] for gap in gaps]).double()
        assert abs(float(values.mean()) - nats) < 4 * float(values.std()) / math.sqrt(len(gaps)), name


def test_the_gap_of_a_decoder_that_ignores_its_code_is_zero():
    """Both halves see the same x_t, so that nothing is left of the noise."""
    model = model_of(ExactNetwork(TRUTH.data))
    model.loss(batch(64))
    gaps = {name: value for name, value in model.watch().items() if name.startswith("gap")}
    assert "gap_nats" in gaps and len(gaps) > 1 and all(abs(value) < 1e-4 for value in gaps.values())


def test_watching_needs_a_step_and_a_code():
    """Before the first step, and after one that was not finite, there is nothing to look at."""
    model = model_of(ExactConditional(TRUTH))
    assert model.watch() == {}
    broken = batch(8)
    broken.x[3] = torch.nan
    model.loss(broken)
    assert not any(name.startswith("gap") for name in model.watch())


def test_a_band_that_no_example_fell_into_is_left_out():
    """A level of detail may look at a part of the axis alone: what was seen is the closed form between its ends."""
    torch.manual_seed(0)
    model, size = model_of(ExactConditional(TRUTH)), 40_000
    x, eps, t = batch(size).x, torch.randn(size, 6), torch.linspace(0.1, 0.3, size)  # log-SNR 7.6 to 4.8
    (alpha, sigma), z = model.noise.scales(t), model.posterior(x).sample(torch.randn(size, 3))
    seen = DecoderStep(x, eps, model.noise.add(x, eps, t), alpha, sigma, model.noise.log_snr(t), z)
    gap = shuffle_gap(model.denoiser, model.start, seen, most=size)
    assert set(gap) == {"gap_nats", "gap_nats_fine"} and gap["gap_nats"] == gap["gap_nats_fine"]
    assert float(gap["gap_nats"]) == pytest.approx(closed_form(4.8, 7.6), rel=0.05)


def test_watching_touches_nothing():
    """Weights, gradients, mode and random numbers are as before, and dropout does not blur the difference."""
    torch.manual_seed(0)
    model = model_of(MLPDecoder((6,), width=16, blocks=1, dropout=0.5, conditioning=Conditioning(3)), EDM(0.5)).train()
    sum(term.mean() for term in model.loss(batch(50)).values()).backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients, random = [p.grad.clone() for p in model.parameters() if p.grad is not None], torch.get_rng_state()
    assert model.watch() == model.watch()
    assert torch.equal(random, torch.get_rng_state()) and all(m.training for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    now = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(gradients, now, strict=True))


def test_watching_does_not_compile_anew():
    """A graph for its own batch size, and for no gradients, would cost more than the run saves."""
    from torch._dynamo.testing import CompileCounter

    torch.manual_seed(0)
    network, counter = MLPDecoder((6,), width=8, blocks=1, conditioning=Conditioning(3)), CompileCounter()
    model = model_of(network, EDM(0.5))
    model.denoiser.network.compile(backend=counter)
    for seed in range(2):
        model.loss(batch(3 * MOST, seed))
        model.watch()
    assert counter.frame_count == 1


@pytest.mark.slow
def test_the_log_says_nothing_to_training(tmp_path):
    """Bit for bit the same weights, watched at every step and at the last one alone."""
    words = ("--data", "digits", "--method", "vae-vdm", *SMALL, "--set", "decoder.dropout=0.2", "--budget", "256ex")
    for every in (1, 100):
        assert diffrep("train", *words, "--set", f"train.log_every={every}", "--out", tmp_path / str(every)) == 0
    one, two = ((tmp_path / every / "model.safetensors").read_bytes() for every in ("1", "100"))
    assert one == two
    first = json.loads((tmp_path / "1" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"rate_nats", "active_units", "gap_nats", "gap_nats_coarse"} <= set(first["watch"])
    assert first["norms"]["encoder"] > 0


@pytest.mark.parametrize("used", [True, False])
def test_an_autoencoder_has_one_gap(used):
    """Its generator sees no noise: zero where it ignores the code, |W (z - z')|^2 / (2 s^2) for a linear one."""

    class Linear(nn.Module):
        weights = TRUTH.weights.float() * used

        def forward(self, z):
            return z @ self.weights.T

    model = Autoencoder((6,), None, ExactPosterior(TRUTH), Linear(), StandardNormal(3), weights={"rate": Constant(1.0)})
    assert model.target is None and model_of(ExactNetwork(TRUTH.data)).target == 5.0
    nn.init.constant_(model.log_spread, math.log(TRUTH.noise))
    gaps = []
    for seed in range(400):
        model.loss(batch(MOST, seed))
        gaps.append(model.watch()["gap_nats"])
    gap, error = torch.tensor(gaps).mean(), torch.tensor(gaps).std() / math.sqrt(len(gaps))
    truth = float((TRUTH.weights**2).sum()) / TRUTH.noise**2 * used  # x - W z is unrelated to z and z'
    assert abs(float(gap) - truth) <= 4 * float(error) + 1e-4
