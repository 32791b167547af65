"""The collapse doctor: what shuffled codes cost against a closed form, and each finding on logs made for it."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from diffrep import config
from diffrep.codes.priors import StandardNormal
from diffrep.config import Settings, override
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import LinearGamma
from diffrep.denoising.parameterisations import EDM, X
from diffrep.models.autoencoder import Autoencoder
from diffrep.models.code_use import BANDS, LOOKED, Seen, shuffle_gap
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.loss_weights import Constant, TargetRate
from diffrep.models.step_terms import denoise, rate
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import MLPDecoder
from diffrep.runs import diagnosis
from diffrep.runs.diagnosis import Adviser, diagnose
from diffrep.shapes import Batch, Draws
from oracles import ExactConditional, ExactNetwork, ExactPosterior, LinearGaussian
from runs_at_hand import SMALL, diffrep, one_sentence, run_of

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
        gaps.append(shuffle_gap(model.denoiser, model.start, model.seen, most=2000))
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
    assert all(abs(value) < 1e-4 for name, value in model.watch().items() if name.startswith("gap"))


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
    seen = Seen(x, eps, model.noise.add(x, eps, t), alpha, sigma, model.noise.log_snr(t), z)
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
        model.loss(batch(3 * LOOKED, seed))
        model.watch()
    assert counter.frame_count == 1


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
        model.loss(batch(LOOKED, seed))
        gaps.append(model.watch()["gap_nats"])
    gap, error = torch.tensor(gaps).mean(), torch.tensor(gaps).std() / math.sqrt(len(gaps))
    truth = float((TRUTH.weights**2).sum()) / TRUTH.noise**2 * used  # x - W z is unrelated to z and z'
    assert abs(float(gap) - truth) <= 4 * float(error) + 1e-4


def log(count: int = 20, every: int = 20, **changes) -> list[dict]:
    """Lines of a healthy run at 12 nats; a change is a value, or a function of the step."""
    plain = dict(
        rate_nats=12.0, price=1.0, active_units=20, code_variance=0.5, gap=20.0, encoder=0.1, decoder=1.0, charged=None
    )  # fmt: skip
    assert set(changes) <= set(plain)

    def line(step: int) -> dict:
        v = {name: value(step) if callable(value) else value for name, value in (plain | changes).items()}
        watch = {"active_units": v["active_units"], "code_variance": v["code_variance"]}
        terms = {"diffusion": 90.0}
        if v["rate_nats"] is not None:
            watch["rate_nats"], terms["rate"] = v["rate_nats"], v["price"] * v["rate_nats"]
        if v["gap"] is not None:
            watch |= {"gap_nats": v["gap"], "gap_nats_coarse": 0.2 * v["gap"], "gap_nats_middle": 0.8 * v["gap"]}
        norms = {"decoder": v["decoder"], "encoder": v["encoder"]}
        return {"step": step, "terms": terms, "norms": norms, "watch": watch}

    return [line(every * (n + 1)) for n in range(count)]


def settings(*changes: str) -> Settings:
    return override(Settings(), changes)


def names(lines: list[dict], *changes: str, target: float | None = None) -> list[str]:
    return [finding.name for finding in diagnose(lines, settings(*changes), target)]


def wobble(step: int) -> float:
    """Noise around zero."""
    return 0.4 * (-1) ** (step // 20)


def test_a_healthy_code_is_said_to_be_alive():
    """With the numbers that say so, and where on the noise axis it is of use."""
    (found,) = diagnose(log(), settings(), 12.0)
    assert (found.name, found.step, found.serious) == ("alive", 400, False)
    for word in ("12.0 nats (12 are asked for)", "20 active units", "20.0 nats, most at the middle"):
        assert word in found.sentence
    lines = [line | {"watch": line["watch"] | {"gap_nats_start": 99.0}} for line in log()]
    assert diagnose(lines, settings(), 12.0)[0].sentence.endswith("lose 20.0 nats, most where the chain starts")


@pytest.mark.parametrize(
    "changes, lines, target, words",
    [
        (("code.beta=1e4",), dict(rate_nats=0.02, price=1e4, active_units=0), None, ["code.beta=10000", "10,000"]),
        (("code.beta=1",), dict(rate_nats=0.02), None, ["code.beta=1 charges", "in place of code.beta"]),
        ((), dict(rate_nats=0.02), None, ["a weight of 1 charges"]),
        ((), dict(rate_nats=0.1, price=0.001), 12.0, ["12 nats are asked for", "down to 0.001", "high-noise"]),
        (("code.beta=5",), dict(rate_nats=3.0, price=5.0, active_units=0), None, ["no active unit at a rate of 3"]),
        (("code.l1=7", "method=drl"), dict(rate_nats=None, code_variance=1e-9), None, ["same for all", "code.l1=7"]),
        (("method=drl",), dict(rate_nats=None, code_variance=1e-9), None, ["same for all", "train.lr"]),
    ],
)
def test_a_dead_code_is_named_with_its_cause(changes, lines, target, words):
    """One sentence: what is seen, why, and a setting that helps; what follows from it is not told as well."""
    (found,) = diagnose(log(**{"gap": wobble, "encoder": 0.0, **lines}), settings(*changes), target)
    assert found.name == "dead" and found.serious and found.sentence.startswith("the code is dead: ")
    assert all(word in found.sentence for word in [*words, "at step 400"])
    assert target is not None or "code.rate=12" in found.sentence or lines["rate_nats"] is None


def test_remedies_are_settings_that_exist():
    """A sentence that names a setting with its value must be one that can be typed."""
    source = Path(diagnosis.__file__).read_text()
    named = set(re.findall(r"\b(?:code|anneal|train|decoder|encoder)\.[a-z_]+(?=[ =;,\"])", source)) - {"code.beta"}
    assert {"code.rate", "code.drop", "anneal.factor", "decoder.width", "train.lr"} <= named <= set(config.names())
    typed = re.findall(r"\b(?:code|anneal)\.[a-z]+=[0-9][0-9.]*\b|detail=high-noise", source)
    chosen = settings(*typed)
    assert (chosen.detail, chosen.anneal.factor, chosen.anneal.steps, chosen.code.drop) == ("high-noise", 2, 1000, 0.1)
    assert settings(f"code.rate={diagnosis.ADVISED}").code.rate == diagnosis.ADVISED


def test_a_code_that_loses_its_rate_is_dying():
    """Seen while there is still something to save; a rate that comes down to its target is none."""
    fall = dict(rate_nats=lambda step: 20 * math.exp(-step / 150), price=4.0)
    (found,) = diagnose(log(**fall), settings("code.beta=4"))
    assert (
        found.name == "dying" and "code.beta=4 charges 4" in found.sentence and "to 1.8 at step 400" in found.sentence
    )
    assert names(log(rate_nats=lambda step: 2 + 20 * math.exp(-step / 50)), target=2.0) == ["alive"]


def test_a_code_that_the_decoder_ignores():
    """Paid for and not read: only once it had time, and only where the noise of the gap cannot hide a use."""
    assert names(log(gap=wobble)) == ["ignored"]
    assert names(log(12, gap=wobble)) == ["alive"]  # step 240
    assert names(log(gap=0.3)) == ["alive"]  # little, and certain: a code of the coarsest level
    (found,) = diagnose(log(gap=wobble), settings("code.drop=0.9"))
    assert found.name == "ignored" and "use code.drop=0.1" in found.sentence
    alive, dropped = diagnose(log(), settings("code.drop=0.9"))
    assert (alive.name, dropped.name) == ("alive", "dropped") and "90%" in dropped.sentence
    assert names(log(rate_nats=None, gap=wobble), "method=drl") == ["ignored"]


def test_an_encoder_without_gradient():
    """Though its code is still read."""
    assert names(log(encoder=1e-12)) == ["cut off"]


def test_a_rate_off_its_target_is_no_alarm():
    """The controller needs time, and says so only to who asks."""
    for nats, side in ((40.0, "above"), (3.0, "below")):
        alive, found = diagnose(log(rate_nats=nats, price=0.5), settings(), 12.0)
        assert (alive.name, found.name, found.serious) == ("alive", "off target", False)
        assert side in found.sentence and "0.5" in found.sentence
    assert Adviser(settings(), 12.0)(log(rate_nats=40.0)[-1]) is None


def test_nothing_is_judged_too_early_or_without_a_code():
    """The first hundred steps, lines that were skipped, values that are not finite, models without a code."""
    assert names(log(8, rate_nats=0.0)) == []
    assert names([line | {"skipped": "rate"} for line in log()]) == []
    assert names([line | {"watch": {}} for line in log()]) == []
    assert names(log(rate_nats=lambda step: math.nan if step % 60 == 0 else 12.0, gap=None)) == ["alive"]
    assert names(log(rate_nats=0.0, gap=None), "code.beta=2") == ["dead"]


def test_a_warning_comes_once():
    """At the fifth line from step 100 on; again only for something else."""
    advise = Adviser(settings("code.beta=1e4"))
    said = [advise(line) for line in log(rate_nats=0.01, price=1e4)]
    assert [line["step"] for line, text in zip(log(), said, strict=True) if text] == [180]
    later = [advise(line | {"step": line["step"] + 400}) for line in log(gap=wobble)]
    assert sum(text is not None for text in later) == 1


def test_a_weight_of_ten_thousand_is_called_within_500_steps(tmp_path, capsys):
    """The study that did not see its own objective forbid a code: now it is one sentence, at the time and after."""
    words = ("--data", "digits", "--method", "vae-vdm", *SMALL, "--set", "train.batch=8", "--budget", "1760ex")
    assert diffrep("train", *words, "--set", "code.beta=1e4", "--out", tmp_path / "run") == 0
    told = one_sentence(capsys)
    assert "the code is dead" in told and "code.beta=10000" in told and "code.rate=12" in told
    assert diffrep("doctor", tmp_path / "run", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["verdict"] == "dead" and facts["findings"][0]["since"] < facts["step"] < 500
    assert facts["numbers"]["price"] == pytest.approx(1e4)
    assert diffrep("doctor", tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert "code.beta=10000" in said and "since step" in said and said.count("\n") == 1


def test_the_doctor_of_other_runs(tmp_path, capsys):
    """Too short, without a code, no run, a log that was edited: a sentence each."""
    for method, verdict in (("vae-vdm", "too early"), ("vdm", "no code"), ("ae", "too early")):
        run = run_of(method)
        capsys.readouterr()
        assert diffrep("doctor", run, "--json") == 0
        assert json.loads(capsys.readouterr().out)["verdict"] == verdict
    assert diffrep("doctor", tmp_path) == 2
    assert "is not a run" in one_sentence(capsys)
    for name in ("config.json", "data.json"):
        (tmp_path / name).write_bytes((run_of("vae-vdm") / name).read_bytes())
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert diffrep("doctor", tmp_path) == 2
    assert "changed by hand" in one_sentence(capsys)
