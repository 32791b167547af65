"""Mistakes that no test once noticed, each with an oracle of its own: what is chosen, seeded, averaged, signed."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from diffrep import data, runs
from diffrep.codes.priors import Mixture, StandardNormal
from diffrep.config import Settings, override
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood, uniform
from diffrep.denoising.noise import VE, LinearGamma
from diffrep.denoising.parameterisations import X
from diffrep.denoising.start import GaussianStart
from diffrep.evaluation.feature_networks import MEAN, named
from diffrep.evaluation.refine import refined
from diffrep.measures import evaluate, readout
from diffrep.measures.profile import _numbers
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.models.coding import Coding
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.diffusion_decoder import DiffusionDecoder
from diffrep.models.latent_diffusion import LatentDiffusion
from diffrep.models.step_terms import denoise, prior, slice_score
from diffrep.probes.disentanglement import dci, mig
from diffrep.probes.few_labels import few_labels
from diffrep.runs.diagnosis import CodeState
from diffrep.runs.summary import numbers
from diffrep.shapes import Batch, Draws
from diffrep.training.optimizer import optimizer
from oracles import ExactConditional, ExactNetwork, ExactPosterior, Gaussian, LinearGaussian, examples_of
from runs_at_hand import run_of

TRUTH = LinearGaussian.of(6, 3)


def coded(start=None, drop: float = 0.1) -> DiffusionModel:
    """The ideal model of linear Gaussian data with its exact code."""
    denoiser = Denoiser(ExactConditional(TRUTH), LinearGamma(-9.0, 5.0), X())
    objective, coding = (
        Objective({"denoising": denoise}, Levels(likelihood)),
        Coding(ExactPosterior(TRUTH), StandardNormal(3), drop),
    )
    return DiffusionModel((6,), None, denoiser, objective, coding, start)


def batch_of(n: int, seed: int = 0) -> Batch:
    return Batch(TRUTH.data.draw(n, seed).float(), torch.arange(n), draws=Draws.of(seed))


def test_one_far_test_row_changes_no_other_answer():
    """The scale of few labels is that of the training split: a test row at 1e6 can be wrong itself, and no more."""
    rng = np.random.default_rng(0)
    y, y_test = rng.integers(0, 3, 60), rng.integers(0, 3, 40)
    x, x_test = (rng.normal(size=(len(v), 4)) + np.eye(4)[v] * 1.5 for v in (y, y_test))
    alone = few_labels((x, y), (x_test, y_test), 3, repeats=3)["accuracy"] * 40
    more = few_labels((x, y), (np.vstack([x_test, [[1e6] * 4]]), np.append(y_test, 0)), 3, repeats=3)["accuracy"] * 41
    assert -1e-9 <= more - alone <= 1 + 1e-9


def test_the_best_times_are_those_of_validation(monkeypatch, tmp_path):
    """Scores whose order on validation is the reverse of that on test: the best is named by the former."""

    def score(way, parts, *rest):
        valid = parts[0][0].mean().item() + {"mean": 0, "concat": 1, "gru": 2, "transformer": 3}[way]
        return {"accuracy": -valid, "se": 0.1, "spread": None, "valid_accuracy": valid}

    monkeypatch.setattr(readout.over_times, "combined", score)
    monkeypatch.setattr(readout.over_times, "combined_linear", score)
    monkeypatch.setattr(readout, "picture", lambda facts: b"")
    run = replace(runs.load(run_of("tdrl")), directory=tmp_path)
    facts = readout.read_times(run, ks=(1, 2), most=60)
    for name, key in (("best_combined", "combined"), ("best_single", "single")):
        rows = [row["mlp"] if key == "single" else row for row in facts[key]]
        assert facts[name]["valid_accuracy"] == max(row["valid_accuracy"] for row in rows)
        assert facts[name]["accuracy"] == min(row["accuracy"] for row in rows)


def test_independent_codes_inform_of_nothing():
    """Trees judged on the half that they were fitted on remember it; on the other half noise tells nothing."""
    rng = np.random.default_rng(0)
    found = dci(rng.normal(size=(300, 3)), rng.normal(size=(300, 1)))
    assert found["informativeness"] < 0.1


def test_a_code_that_holds_a_factor_and_more_has_a_gap_of_one():
    """MIG is divided by the entropy of the factor: a number that holds the factor and three bits beside gives 1."""
    rng = np.random.default_rng(0)
    factor, beside = rng.integers(0, 2, 4000), rng.integers(0, 8, 4000)
    codes = np.stack([factor * 8 + beside, np.zeros(4000)], 1)
    assert mig(codes, factor[:, None])["score"] == pytest.approx(1.0)


def test_the_seed_of_a_run_cuts_its_data():
    """splits_of hands the seed on: the splits are those of `load` with this seed, and of no other."""
    of = {seed: runs.splits_of(override(Settings(), [f"seed={seed}"])).train.fingerprint for seed in (0, 1)}
    assert of == {seed: data.load("digits", seed=seed).train.fingerprint for seed in (0, 1)} and of[0] != of[1]


def test_betas_are_those_of_adamw():
    """The means of gradients 1 and 3 with decays 0.9 and 0.5, by hand: 0.39 and 4.75."""
    weight = nn.Parameter(torch.zeros(1))
    adamw = optimizer({"all": [weight]}, set(), lr=1e-3, beta1=0.9, beta2=0.5, weight_decay=0.0)
    for gradient in (1.0, 3.0):
        weight.grad = torch.tensor([gradient])
        adamw.step()
    state = adamw.state[weight]
    assert float(state["exp_avg"]) == pytest.approx(0.9 * 0.1 + 0.1 * 3)
    assert float(state["exp_avg_sq"]) == pytest.approx(0.5 * 0.5 + 0.5 * 9)


def test_codes_are_withheld_from_the_share_that_is_said():
    """drop=0.1 keeps nine of ten, and the network is told of the same ones."""
    model = coded()
    step = model.noised(batch_of(4000))
    assert float(step.kept.mean()) == pytest.approx(0.9, abs=0.02)


def test_a_learned_start_answers_for_what_the_decoder_sees():
    """The prior term of a row whose code is kept is that of start(z), of a dropped row that of start()."""
    start = GaussianStart((6,), 3, width=2)
    with torch.no_grad():
        start.network.out.weight.normal_()
        start.mean.fill_(0.5)
    model = coded(start=start, drop=0.5)
    step = model.noised(batch_of(40))
    nats, loss = prior(step), model.noise.prior_loss
    seen, alone = loss(step.x, start(model.noise, step.z)), loss(step.x, start(model.noise))
    assert not torch.allclose(seen, alone)
    torch.testing.assert_close(nats, torch.where(step.kept == 1, seen, alone))


def test_sliced_score_matching_has_the_weight_of_its_noise():
    """Under the ideal denoiser of data of variances lambda the mean term is -sigma^2/2 sum 1 / (lambda + sigma^2)."""
    truth = Gaussian.of(4, diagonal=True)
    denoiser = Denoiser(ExactNetwork(truth), VE(0.3, 3.0), X())
    model = DiffusionModel((4,), None, denoiser, Objective({"sliced": slice_score}, Levels(uniform)))
    x = truth.draw(20000).float()
    step = model.noised(Batch(x, torch.arange(len(x)), draws=Draws.of(0)))
    variance = step.prediction.sigma.double()[:, None] ** 2
    exact = -0.5 * (variance / (truth.spectrum[0] + variance)).sum(1)
    off = slice_score(step).double().detach() - exact
    assert abs(float(off.mean())) < 4 * float(off.std()) / math.sqrt(len(x)) and float(off.std()) < 20
    assert abs(float(off.mean())) < 0.03


def test_a_latent_prior_prices_each_code_by_itself():
    """Untrained it is N(0, I): row by row, codes far out cost more, as log N(0, I) says; means alone are blind."""
    torch.manual_seed(0)
    model = LatentDiffusion(2).eval()
    z = torch.tensor([[0.0, 0.0], [3.0, 0.0], [-2.0, 2.0], [0.5, -0.5], [4.0, 1.0]])
    truth = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    with torch.no_grad():
        said = torch.stack([model.log_prob(z + 1e-4 * k) for k in range(8)]).mean(0)  # other codes, other noise
    assert float((said - truth).abs().max()) < 2.0, (said, truth)


def test_components_without_codes_have_no_weight():
    """Nine codes fit four components of ten; what is left over has no share of the density."""
    fitted = Mixture(2, 10)
    fitted.fit(torch.randn(9, 2, generator=torch.Generator().manual_seed(0)))
    weights = torch.softmax(fitted.scores, 0)
    assert float(weights[:4].sum().detach()) == pytest.approx(1.0) and not weights[4:].any()


def test_denoising_is_the_mean_over_examples(monkeypatch):
    """250 examples that cost 2 and 50 that cost 14 make two batches: the mean is that of examples, 2 for a number."""
    model = coded()
    test = examples_of(np.concatenate([np.full((250, 6), 1.0), np.full((50, 6), 7.0)]).astype(np.float32))
    monkeypatch.setattr(
        DiffusionDecoder, "denoising_by_level", lambda self, chunk, levels, with_code: chunk.x.sum(1, True)
    )
    found = evaluate._denoising(model, test, 3, lambda *_: None)
    assert found["with_code"] == pytest.approx(2.0) and found["without_code"] == pytest.approx(2.0)


def test_the_rate_of_refined_codes_is_theirs():
    """Two routes: where the whole split is refined, the rate is that of the refined codes themselves."""
    model = coded()
    test = examples_of(TRUTH.data.draw(40).numpy())
    whole = {"bound": {"bits_per_dim": 1.0, "bits_per_dim_se": 0.1}, "rate_nats": None}
    both = refined(model, test, 3, 2)
    whole["rate_nats"] = both.encoded.rate_nats
    found = evaluate._refined(model, test, 2, 3, whole, lambda *_: None)
    assert found["rate_nats"] == pytest.approx(both.refined.rate_nats, abs=1e-4)
    assert abs(both.rate_change) > 1e-3
    assert found["bits_per_dim_se"] == pytest.approx(both.refined.summary()["bits_per_dim_se"])
    assert found["gap_nats"] == pytest.approx(float((both.encoded.total - both.refined.total).mean()), abs=1e-4)


def test_the_ends_of_a_profile_are_those_of_the_process():
    """The cells fill the noise axis: half a cell beyond the outer centres lie log-SNR -5 and 9."""
    from diffrep.evaluation.information import profile

    seen = profile(coded(), examples_of(TRUTH.data.draw(20).numpy()), levels=4)
    assert _numbers(seen)["log_snr_ends"] == pytest.approx([-5.0, 9.0], abs=1e-4)


def test_the_error_of_a_gap_is_a_standard_error():
    """Of the gaps 1, 2, 3, 4, 5: their deviation over the root of five."""
    lines = [{"step": k, "watch": {"gap_nats": float(k)}, "terms": {}, "norms": {}} for k in range(1, 6)]
    assert CodeState.of(lines).gap_se == pytest.approx(np.std([1, 2, 3, 4, 5], ddof=1) / math.sqrt(5))


def test_images_a_second_are_examples_over_seconds(tmp_path):
    """600 examples in 2 seconds are 300 a second."""
    import shutil

    shutil.copytree(run_of("ae"), tmp_path / "run")
    run = runs.load(tmp_path / "run")
    run.keep("metrics.json", {"trained": {"examples": 600}, "bound": None, "probes": {}})
    (tmp_path / "run" / "timings.jsonl").write_text(json.dumps({"step": 1, "seconds": 2.0}) + "\n")
    assert numbers(tmp_path / "run").images_per_second == 300


@pytest.mark.parametrize("bins", [None, 64])
def test_the_flow_counts_the_scale_of_the_data_end(bins):
    """At gamma_0 = -2 alpha_0 is far from one: the density of x is that of x_0 = alpha_0 x, and alpha_0 for each
    number. With levels the same, of x + u, and the width of a level."""
    truth = Gaussian.of(3, diagonal=True, scale=0.5)
    noise = LinearGamma(-2.0, 8.0)
    denoiser = Denoiser(ExactNetwork(truth), noise, X())
    model = DiffusionModel((3,), bins, denoiser, Objective({"denoising": denoise}, Levels(likelihood)))
    x = truth.draw(400).float().clamp(-0.99, 0.99)
    got = -model.flow_bound(Batch(x, torch.arange(400), draws=Draws.of(0)), steps=100).double()
    u = torch.zeros_like(x) if bins is None else (2 * Draws.of(0).uniform(*x.shape) - 1) / bins
    alpha = float(noise.scales(torch.zeros(1))[0])
    exact = truth.flow_log_prob(noise, alpha * (x + u).double(), float(noise.start_scale())) + 3 * math.log(alpha)
    exact = exact + (0 if bins is None else 3 * math.log(2 / bins))
    assert float((got - exact).abs().mean()) < 0.1 and abs(float((got - exact).mean())) < 0.05


def test_reconstructions_stand_beside_their_own_example():
    """Two decodings of each code of a plain autoencoder, which decodes at once, are each single one twice in a row."""

    model = build(
        override(Settings(), ["method=ae", "decoder.width=2", "encoder.width=2", "code.dim=2"]), Facts((3,), None)
    )
    x = torch.randn(4, 3)
    torch.testing.assert_close(model.reconstruct(x, per_code=2), model.reconstruct(x).repeat_interleave(2, 0))


def test_a_picture_of_the_mean_colour_is_zero_to_dino(monkeypatch):
    """DINO's means are those of R, G and B in this order."""
    seen = []

    class Network:
        def to(self, device):
            return self

        eval = to

        def __call__(self, pixel_values):
            seen.append(pixel_values)
            return type("Said", (), {"last_hidden_state": torch.zeros(len(pixel_values), 1, 1)})

    Network.eval = lambda self: self
    transformers = type(
        "T", (), {"AutoModel": type("A", (), {"from_pretrained": staticmethod(lambda *a, **k: Network())})}
    )
    monkeypatch.setitem(__import__("sys").modules, "transformers", transformers)
    colour = 2 * torch.tensor(MEAN)[None, :, None, None] - 1
    named("dino").of(colour.expand(1, 3, 8, 8))
    assert float(seen[0].abs().max()) < 1e-5
    assert MEAN == (0.485, 0.456, 0.406)  # of ImageNet, as torchvision states them
