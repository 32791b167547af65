"""Numbers that are stated are right where the truth is known: the flow, use of a code, samples, errors, scales."""

import ast
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import diffrep
from diffrep import runs
from diffrep.amounts import amount, plus_minus
from diffrep.data import load
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.detail import Levels, likelihood
from diffrep.denoising.noise import VE, VP, Cosine, LinearGamma
from diffrep.denoising.parameterisations import X
from diffrep.denoising.samplers import Sampling
from diffrep.denoising.start import MatchedStart, StandardStart
from diffrep.denoising.terms import reconstruction
from diffrep.evaluation.bound import Bound
from diffrep.evaluation.information import Profile
from diffrep.measures.evaluate import _flow
from diffrep.models.diffusion import DiffusionModel, Objective
from diffrep.models.step_terms import denoise
from diffrep.probes.result import error_of_share
from diffrep.runs import records
from diffrep.runs.run import _warn_of_repeats
from diffrep.shapes import Draws, expand
from oracles import ExactNetwork, Gaussian, examples_of
from tiny import settings


def model_of(network: nn.Module, noise, dims: int, begin=None) -> DiffusionModel:
    objective = Objective({"denoising": denoise}, Levels(likelihood))
    return DiffusionModel((dims,), None, Denoiser(network, noise, X()), objective, begin=begin)


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise", [VE(), VP(), LinearGamma(), Cosine(-15.0, 13.3)], ids=["ve", "vp", "linear", "cosine"]
)
def test_the_flow_states_an_error_that_holds_that_of_its_steps(noise):
    """With the ideal denoiser of N(0, I) in 64 dimensions the density that the flow pushes forward is known: what is
    stated is within its own error of it, and what the steps still do is a tenth of that."""
    dims, truth = 64, Gaussian(torch.zeros(64).double(), torch.eye(64).double(), (64,))
    x = truth.draw(30)
    found = _flow(model_of(ExactNetwork(truth), noise, dims), examples_of(x.numpy()), 30, lambda *_: None)
    alpha = float(noise.scales(torch.zeros(1))[0])
    pushed = truth.flow_log_prob(noise, alpha * x, float(noise.start_scale())) + dims * math.log(alpha)
    bits = dims * math.log(2)
    off = abs(found["bits_per_dim"] * bits + float(pushed.mean()))
    assert off < found["bits_per_dim_by_steps"] * bits + 0.02
    assert found["bits_per_dim_by_steps"] <= 0.1 * found["bits_per_dim_se"] + 1e-6
    assert found["steps"] >= 100


def test_what_exceeds_the_information_is_no_use():
    """A decoder that gains 10 nats by a code that costs 4 and can hold 2.77 uses 2.77 of the 4; the rest is stated."""
    gains = torch.tensor([[9.0], [11.0]])
    seen = Profile(torch.zeros(1), gains, 1.0, torch.zeros(2), torch.full((2,), 4.0), 1)
    most = torch.full((2,), math.log(16))
    assert seen.used_share(most) == pytest.approx((math.log(16) / 4, 0.0))
    assert seen.excess(most) == pytest.approx((10 - math.log(16), 1.0))
    assert seen.used_share(torch.full((2,), 20.0))[0] == seen.used_share()[0] == pytest.approx(2.5)
    assert seen.excess(torch.full((2,), 20.0)) == (0.0, 0.0)


def test_the_error_of_the_used_share_knows_what_was_paid():
    """Where what is carried is half of what is paid in every example the share is known exactly."""
    rates = torch.tensor([2.0, 4.0, 8.0])
    seen = Profile(torch.zeros(1), rates[:, None] / 2, 1.0, torch.zeros(3), rates, 1)
    assert seen.used_share() == pytest.approx((0.5, 0.0), abs=1e-9)


class TwoPoints(nn.Module):
    """The ideal denoiser of x = 1 with probability 0.7, else -1: E[x | x_t] = tanh(alpha x_t / sigma^2 + logit / 2)."""

    def __init__(self):
        super().__init__()
        self.answer = nn.Parameter(torch.ones(()))

    def forward(self, x_t, log_snr, z=None, extra=None, drop=None):
        alpha, sigma2 = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr)
        return self.answer * torch.tanh(expand(alpha / sigma2, x_t) * x_t + 0.5 * math.log(0.7 / 0.3))


@pytest.mark.parametrize("matched", [True, False])
def test_samples_start_from_what_the_data_are_at_the_noise_end(matched):
    """A law of two points with weights 0.7 and 0.3, the ideal denoiser and gamma_1 = 5: from the mean and variance of
    the data at t = 1 their shares come back, from N(0, 1) they do not, however many steps."""
    begin = MatchedStart(torch.tensor([0.4]), torch.tensor([0.84])) if matched else None
    model = model_of(TwoPoints(), LinearGamma(-13.3, 5.0), 1, begin=begin)
    x_1 = torch.special.ndtri((torch.arange(4000) + 0.5) / 4000).float()[:, None]
    share = float((model.decode(None, 4000, Draws.of(0), Sampling("heun", 200), x_1) > 0).float().mean())
    assert (abs(share - 0.7) < 0.002) == matched and (matched or share < 0.692)


def test_a_run_knows_the_moments_of_its_training_data():
    """Mean and variance of each channel, by hand; a learned start needs none, and the bound keeps its own start."""
    x = np.random.default_rng(0).uniform(-1, 1, (40, 2, 3, 3)).astype(np.float32)
    mean, variance = examples_of(x).moments()
    np.testing.assert_allclose(mean, x.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(variance, x.var((0, 2, 3)), rtol=1e-5)
    model = model_of(TwoPoints(), LinearGamma(), 1, begin=MatchedStart(torch.tensor([0.4]), torch.tensor([0.84])))
    assert type(model.start) is StandardStart and "begin.mean" not in model.state_dict()


def test_one_example_has_no_error():
    """A single test example leaves every error unknown: null in the file, one sentence on the screen, never nan."""
    one = Bound({"diffusion": torch.ones(1)}, (4,), 8, None).summary()
    assert math.isnan(one["bits_per_dim_se"]) and records.plain({"a": [one["bits_per_dim_se"]]}) == {"a": [None]}
    assert math.isnan(error_of_share(1.0, 1)) and error_of_share(0.5, 100) == pytest.approx(0.05 / math.sqrt(1.01))
    assert plus_minus(1.0, None) == plus_minus(1.0, math.nan) == "1.0000 (one example has no error)"
    assert plus_minus(1.0, 0.5, ".1f") == "1.0 +- 0.5"


def test_a_number_stands_with_its_noun():
    assert [amount(n, "test row") for n in (0, 1, 2000)] == ["0 test rows", "1 test row", "2,000 test rows"]
    assert [amount(n, "class") for n in (1, 2)] == ["1 class", "2 classes"] and amount(2, "guess") == "2 guesses"


def test_no_message_writes_a_plural_after_a_number():
    """A count in front of its noun goes through `amount`: "1 examples" was in forty messages. What is never one is
    named here, by its file."""
    nouns = "examples|steps|files|codes|samples|columns|rows|runs|classes|labels|numbers|pictures|recordings|units"
    plural = re.compile(rf"(?<!of )(?<!of the )\0( (test|training|active|new|noise|labelled))? ({nouns})\b")
    never_one = {
        "data/layout.py",  # the longer of two axes
        "data/readers/arrays.py",  # labels of several numbers
        "data/readers/recordings.py",  # samples a second
        "data/values.py",  # a table of counts has thirty columns
        "measures/probe.py",  # examples of three splits
        "pages/sections.py",  # more classes than colours
        "probes/disentanglement.py",  # two at least
        "probes/quality.py",  # two for each block
        "training/engine.py",  # the steps after which a training that diverges ends
        "training/journal.py",  # examples/s
        "cli.py",
    }
    package, found = Path(diffrep.__file__).parent, set()
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found |= {path.relative_to(package).as_posix()} if plural.search(text) else set()
    assert found == never_one


def test_integers_of_0_and_1_are_two_levels():
    """Whole numbers come first: a density of pictures of 0 and 1 means nothing; floats of the same are continuous."""
    x = np.random.default_rng(0).integers(0, 2, (20, 4, 4))
    assert load(x).train.bins == load(x.astype(np.int32)).train.bins == load(x.astype(bool)).train.bins == 2
    assert load(x * 200).train.bins == 256 and load(x.astype(np.float64)).train.bins is None


def test_a_column_of_seconds_is_standardised():
    """Near 1.7e9 float32 knows every 128th second: mean and scale are float64, and taken off before the cast."""
    rng = np.random.default_rng(0)
    x = np.stack([1.7e9 + rng.normal(size=400), rng.normal(size=400), np.full(400, 0.1)], 1)
    seen = load(x).train
    values = seen.batch(torch.arange(len(seen))).x
    assert values[:, :2].mean(0).abs().max() < 1e-5 and (values[:, :2].std(0) - 1).abs().max() < 0.01
    assert values[:, 2].abs().max() < 1e-9
    assert seen.scaling is not None and seen.scaling[0].dtype == torch.float64


def test_the_window_of_the_reconstruction_leaves_nothing():
    """At a noise of five levels, against the softmax over all levels in float64."""
    bins, sigma = 256, 5 * 2 / 256
    x = 2 * (torch.tensor([[100.0, 128.0, 30.0]]).repeat(50, 1) + 0.5) / bins - 1
    x_0 = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    levels = 2 * (torch.arange(bins).double() + 0.5) / bins - 1
    scores = torch.log_softmax(-0.5 * ((x_0.double()[..., None] - levels) / sigma) ** 2, -1)
    own = torch.round((x + 1) * bins / 2 - 0.5).long()[..., None]
    exact = -scores.gather(-1, own)[..., 0].sum(1)
    got = reconstruction(x, x_0, torch.ones(50), torch.full((50,), sigma), bins)
    assert float((got.double() - exact).abs().max()) < 3e-5 and abs(float((got.double() - exact).mean())) < 5e-6


def sixteen() -> np.ndarray:
    """Sixteen equally likely pictures of 8 x 8, thirty of each."""
    pictures = np.random.default_rng(0).integers(0, 2, (16, 8, 8)).astype(bool)
    return np.repeat(pictures, 30, 0)


@pytest.mark.parametrize(
    ("counts", "nats"), [([30] * 16, math.log(16)), ([2, 1, 1], 1.5 * math.log(2)), ([1] * 40, math.log(40))]
)
def test_the_entropy_of_examples_is_that_of_their_shares(counts, nats):
    """Of sixteen equally likely ones, of a half and two quarters, and of forty that all differ."""
    digests = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)[:, None]
    examples = replace(examples_of(np.zeros((len(digests), 1), np.float32)), digests=digests)
    assert examples.entropy() == (pytest.approx(nats), len(counts))


@pytest.mark.slow
@pytest.mark.parametrize("changes, said", [((), True), (("code.rate=2.0",), False), (("code.beta=1.0",), False)])
def test_a_rate_that_the_data_cannot_fill_is_told_of(changes, said, tmp_path):
    """Sixteen pictures hold 2.8 nats, and twelve are asked for by default; two are less than there is."""
    np.save(tmp_path / "x.npy", sixteen())
    asked = settings("vae-vdm", "train.budget=16ex", *changes, data=tmp_path / "x.npy")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        runs.train(asked, tmp_path / "run")
    assert ("2.8 nats, and 12 are asked for" in " ".join(str(w.message) for w in told)) == said


def test_the_rate_that_is_named_asks_for_no_more_than_there_is():
    """Sixteen pictures hold ln 16 = 2.77 nats and twenty ln 20 = 2.996, which rounding would make 2.8 and 3. The rate
    that the sentence names draws no second warning, and the sentence says that it was worse."""
    for count in (16, 20):
        pictures = np.random.default_rng(0).integers(0, 2, (count, 8, 8)).astype(bool)
        examples = load(np.repeat(pictures, 30, 0)).train
        with pytest.warns(UserWarning, match="worse bound in a trial") as told:
            _warn_of_repeats(examples, 12.0)
        named = float(re.search(r"code\.rate=(\d\.\d)", str(told[0].message))[1])
        assert math.log(count) - 0.15 < named < math.log(count)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _warn_of_repeats(examples, named)


def test_a_run_of_different_examples_is_not_warned():
    """The log of the number of digits is below twelve nats too, and says nothing of new digits."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn_of_repeats(load("digits").train, 12.0)
