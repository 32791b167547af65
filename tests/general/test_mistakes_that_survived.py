"""Mistakes that `make mutants` had put in and no test had noticed: each has an oracle of its own, by hand or closed."""

import math
import warnings
from dataclasses import asdict, replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.distributions import MultivariateNormal

from diffrep import DiffusionClassifier, DiffusionEncoder, data, estimators
from diffrep.codes.priors import Afterwards
from diffrep.config import Settings, override
from diffrep.data.places import places
from diffrep.data.readers.recordings import log_mel
from diffrep.data.splits import cut
from diffrep.denoising.samplers import SMOOTH
from diffrep.estimators.codes import bounds, decoded
from diffrep.estimators.forms import Table, _step, seconds
from diffrep.evaluation.pilot import STEEPEST, _plan, pilot
from diffrep.evaluation.times import combined, combined_linear
from diffrep.measures.semi import _over
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.nets.embeddings import NoiseLevel
from diffrep.probes.mlp import mlp
from diffrep.probes.result import balanced
from diffrep.runs.inputs import batch_of
from diffrep.shapes import Draws
from diffrep.studies.row import Question, Row
from oracles import examples_of


def small(method: str):
    torch.manual_seed(0)
    changes = [f"method={method}", "decoder.width=4", "encoder.width=4", "code.dim=2"]
    return build(override(Settings(), changes), Facts((3,), None)).eval()


def test_what_a_pilot_draws_once_varies_by_its_noise(monkeypatch):
    """Terms that are 3 N(0, 1) have variance 9, which two draws of 128 tell to a fifth."""
    model = small("vae")
    monkeypatch.setattr(model, "ends", lambda batch, code: {"prior": 3 * batch.random.normal(len(batch))})
    found = pilot(model, examples_of(np.zeros((128, 3), np.float32)), torch.device("cpu"))
    assert found.rest == pytest.approx(9, rel=0.5)


def test_a_slope_that_is_too_steep_is_that_of_noise():
    """Losses that are c, 50 c and -c: slopes of 1, of the most that is allowed, and of nothing."""
    generator = torch.Generator().manual_seed(0)
    c, v = (torch.rand(40, 3, generator=generator).double() for _ in range(2))
    plan = _plan(c * torch.tensor([1.0, 50.0, -1.0]), [c], v, (), torch.rand(40, generator=generator), 0.0, 40)
    torch.testing.assert_close(plan.slopes[:, 0], torch.tensor([1.0, STEEPEST, 0.0]))


def test_places_of_near_grey_levels_are_one_group():
    """Eight places, each of one grey level: the four dark ones are a group, the four bright ones the other."""
    levels = np.array([0, 200, 16, 216, 32, 232, 48, 248], np.uint8)
    group, _ = places(examples_of(np.tile(levels, (20, 1)).reshape(20, 1, 2, 4), 256), groups=2)
    dark = group.flatten()[torch.arange(0, 8, 2)]
    bright = group.flatten()[torch.arange(1, 8, 2)]
    assert len(set(dark.tolist())) == len(set(bright.tolist())) == 1 and dark[0] != bright[0]


def test_a_range_makes_data_continuous():
    """Whole numbers with `data.range` are no grey levels: x = -1 at its low end and 1 at its high end."""
    x = np.random.default_rng(0).integers(0, 256, (30, 1, 4, 4)).astype(np.uint8)
    train = data.load(x, range=(0, 255)).train
    assert train.bins is None
    whole = train.batch(torch.arange(len(train))).x
    raw = (whole + 1) / 2 * 255
    torch.testing.assert_close(raw, raw.round(), atol=1e-3, rtol=0)


def test_a_small_split_has_an_example():
    """A hundredth of ten rows is one row."""
    rows = cut(10, None, "x", valid=0.01, test=0.01, seed=0)
    assert {name: len(some) for name, some in rows.items()} == {"train": 8, "valid": 1, "test": 1}


class Itself(TransformerMixin, BaseEstimator):
    """An encoder whose code of a row is the row."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_the_head_is_fitted_to_the_codes_of_the_labelled_rows(strength):
    """Labels on the last rows alone: scikit-learn's own regression of them, of the same strength."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    y = np.where(np.arange(60) < 30, -1, (x[:, 0] + x[:, 1] > 0).astype(int))
    fitted = DiffusionClassifier(Itself(), strength=strength, finetune=False, random_state=7).fit(x, y)
    head = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000)).fit(x[30:], y[30:])
    np.testing.assert_allclose(fitted.predict_proba(x), head.predict_proba(x), atol=1e-9)
    assert fitted.encoder_.random_state == 7


class Marking(torch.nn.Module):
    """Says the class of row i, i mod 2, of the rows that it knows, and the other one of those that it does not."""

    def __init__(self, known: torch.Tensor):
        super().__init__()
        self.register_buffer("known", known)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        right = x[:, 0].long() % 2
        says = torch.where(torch.isin(x[:, 0], self.known), right, 1 - right)
        return torch.nn.functional.one_hot(says, 2).float()


@pytest.mark.parametrize("learns", ["the rule", "its rows"])
def test_training_the_encoder_too_is_chosen_on_labels_that_were_held_out(learns, monkeypatch):
    """A head that is right on half of the rows, beside a network that learns the rule, which is kept, or its own rows
    by heart, which is not; with 49 labels of a class it is not tried."""
    x, y = np.arange(100, dtype=np.float32)[:, None], np.arange(100) % 2
    every = torch.from_numpy(x[:, 0])
    place = import_module("diffrep.estimators.classifier")
    monkeypatch.setattr(place, "encoder_of", lambda model: model)
    monkeypatch.setattr(place, "frozen", lambda *_: Marking(every[:50]))
    monkeypatch.setattr(place, "finetune", lambda _, few, __: Marking(every if learns == "the rule" else few[0][:, 0]))
    made = DiffusionClassifier()
    run = SimpleNamespace(model=None, device=torch.device("cpu"))
    made.encoder_ = SimpleNamespace(run_=run, _examples=examples_of)
    assert (made._tuned(x, np.arange(100), y) is not None) == (learns == "the rule")
    assert made._tuned(x, np.arange(99), y[:99]) is None


def test_numbers_that_were_not_standardised_are_warned_of():
    """Six of ten values twenty deviations from the mean are raw numbers, four may be a heavy tail."""
    card = SimpleNamespace(shape=(2,), scaling=([0.0, 0.0], [1.0, 1.0]))
    run, x = SimpleNamespace(card=card, device=torch.device("cpu")), torch.zeros(10, 2)
    x[:6, 1] = 20.0
    with pytest.warns(UserWarning, match="most values of a column"):
        batch_of(run, x)
    x[4:, 1] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch_of(run, x)


def test_the_error_of_few_labels_is_of_the_draws_and_of_the_test_examples():
    """0.7 and 0.9 have an error of 0.1; one draw alone has that of the test examples."""
    among = math.sqrt(0.8 * 0.2 / 100 + 0.25 / 100**2) / 1.01
    assert _over([0.8], 100)["se"] == pytest.approx(among)
    assert _over([0.7, 0.9], 100)["se"] == pytest.approx(math.hypot(0.1, among))


def test_a_column_that_does_not_vary_is_not_divided_by_its_rounding():
    """The standard deviation of 60 times 0.1 is 1e-17 by NumPy; a step of dates is a day where all are whole days."""
    x = np.full((60, 3), [0.1, 0.7, 1.7e9 + 0.1])
    assert (x.std(0) > 0).any() and (Table(x).std == 1).all()
    days = 86_400.0 * np.array([18_000.0, 18_003.0, np.nan])
    assert (_step(days), _step(days + np.array([0.0, 3600.0, 0.0]))) == (86_400.0, 1.0)


def test_rows_are_decoded_from_the_noise_of_their_seed():
    """Each seed is another x_1, the one that `Model.decode` is given by hand."""
    model, z = small("drl"), np.zeros((2, 2), np.float32)
    first, second = decoded(model, z, seed=1), decoded(model, z, seed=2)
    assert np.abs(first - second).max() > 1e-3
    draws = Draws.of(2)
    x_1 = draws.normal(1, 3).expand(2, 3)
    expected = model.decode(torch.from_numpy(z), 2, draws, SMOOTH, x_1)
    np.testing.assert_allclose(second, expected.detach(), atol=1e-5)


def test_bounds_row_by_row_have_the_noise_of_their_seed():
    """Two seeds draw other noise levels; one seed draws the same again."""
    model, examples = small("vae-vdm"), examples_of(np.zeros((3, 3), np.float32))
    first = bounds(model, examples, seed=1)
    assert np.array_equal(first, bounds(model, examples, seed=1))
    assert np.abs(first - bounds(model, examples, seed=2)).min() > 1e-4


def test_a_prior_of_one_gaussian_is_that_gaussian():
    """Sixty codes of one Gaussian: ten components would fit them better, and those that are held out worse. The density
    and the samples are those of the moments of the fifty-four that are fitted."""
    covariance = torch.tensor([[2.0, 1.2], [1.2, 1.0]])  # so that a transposed factor is another
    codes = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)) @ torch.linalg.cholesky(covariance).mT
    prior = Afterwards(2, 10)
    prior.fit(codes)
    assert int(prior.scores.isfinite().sum()) == 1
    train = codes[:-6].double()
    truth = MultivariateNormal(train.mean(0), train.T.cov(correction=0))
    asked = torch.cat([codes, 4 * codes])
    torch.testing.assert_close(prior.log_prob(asked).double(), truth.log_prob(asked.double()), atol=0.01, rtol=0.01)
    samples = prior.sample(50_000, Draws.of(0))
    torch.testing.assert_close(samples.T.cov().double(), truth.covariance_matrix, atol=0.06, rtol=0)


def test_a_noise_level_is_seen_as_sines_and_cosines():
    """sin^2 + cos^2 = 1 for each frequency, and at log-SNR 0 all sines are 0 and all cosines 1."""
    level = NoiseLevel(4, waves=5)
    level.perceptron = torch.nn.Identity()
    sines, cosines = level(torch.tensor([0.0, 1.3, -7.0])).chunk(2, 1)
    torch.testing.assert_close(sines**2 + cosines**2, torch.ones(3, 5))
    assert not sines[0].any() and torch.equal(cosines[0], torch.ones(5))


def test_the_first_weights_of_a_perceptron_are_those_of_its_seed(monkeypatch):
    """The network that `fit` is given is the one that its seed makes."""
    seen = []

    def fit(network, *rest):
        seen.append(network[1].weight.detach().clone())
        return SimpleNamespace(step=0)

    monkeypatch.setattr(import_module("diffrep.probes.mlp"), "fit", fit)  # the package names its function so too
    rng = np.random.default_rng(0)
    split = rng.normal(size=(20, 3)), np.arange(20) % 2
    for seed in (1, 2):
        mlp(split, split, split, seed=seed)
    for seed, weight in zip((1, 2), seen, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(weight, torch.nn.Linear(3, 512).weight)


def test_an_interpolation_begins_at_the_first_example():
    """Its ends are the decodings of the two codes, from the same noise."""
    model = small("drl")
    a, b = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    path = model.interpolate(a, b, points=3, seed=4)
    codes = model.encode(torch.stack([a, b])).mean.detach()
    draws = Draws.of(4)
    x_1 = draws.normal(1, 3).expand(2, 3)
    ends = model.decode(codes, 2, draws, SMOOTH, x_1)
    torch.testing.assert_close(path[[0, 2]], ends, atol=1e-4, rtol=1e-4)
    assert float((path[0] - path[2]).abs().max()) > 1e-3


def test_what_chooses_a_way_to_combine_times_is_not_the_test_split():
    """Labels of test that are all wrong: accuracy falls to what is left, and that on validation stays."""
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.integers(0, 2, 80))
    codes = torch.from_numpy(rng.normal(size=(80, 2, 3))).float() + 4 * y[:, None, None]
    train, valid, test = (codes[:40], y[:40]), (codes[40:60], y[40:60]), (codes[60:], 1 - y[60:])
    for score in (combined("mean", (train, valid, test), epochs=20), combined_linear("mean", (train, valid, test))):
        assert score["valid_accuracy"] > 0.9 and score["accuracy"] < 0.1
    assert not math.isnan(score["se"])


@pytest.mark.parametrize("budget, steps", [("100s", 36), ("1h", 300)])
def test_a_budget_lowers_the_steps_and_never_raises_them(budget, steps, monkeypatch):
    """Every reading of the clock is a second later: 1 s an encoding, 1/3 s a step. One draw has 8 encodings and 6 s of
    trial, then 2 + 5 fits: (100 - 14) / (7 / 3) = 36.9, so 36 steps."""
    place = import_module("diffrep.measures.semi")
    clock = iter(range(100))
    monkeypatch.setattr(place.time, "perf_counter", lambda: next(clock))
    for module, name in ((place.finetune, "frozen"), (place.finetune, "groups_of"), (place, "descend")):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(place, "cross_entropy", lambda *_: None)
    monkeypatch.setattr(place.pseudo_labels, "composite", lambda *_: None)
    assert place.pseudo_labels.ROUNDS == 5
    x = torch.zeros(4, 2)
    few = x, torch.tensor([0, 1, 0, 1])
    assert place._steps_within(budget, 300, 1, torch.nn.Identity(), few, x) == steps


def test_a_gap_in_a_column_of_dates_stays_a_gap():
    """Seconds since 1970 of three days, the middle one missing; in the pair of numbers and flags too."""
    dates = pd.DataFrame({"day": pd.to_datetime(["1970-01-02", None, "1970-01-04"])})
    np.testing.assert_array_equal(seconds(dates)[:, 0], [86_400.0, np.nan, 3 * 86_400.0])


def test_a_row_answers_its_own_question_alone():
    """Not that of another measure, level or setting, whichever field differs; and a row that failed answers none."""
    question = Question(["bound"], levels=2, features="f", refine=1, settings=["train.lr=1"], dim=3)
    row = Row("a-seed0", "a", "ae", True, 0, {}, question=question)
    assert row.answers(question) and not replace(row, error="burst").answers(question)
    for field, other in {"measure": [], "levels": 3, "features": "g", "refine": 2, "settings": [], "dim": 4}.items():
        assert not row.answers(replace(question, **{field: other})), field
    assert {*asdict(question)} == {"measure", "levels", "features", "refine", "settings", "dim"}


@pytest.mark.parametrize("depth, classes", [(1, ("a", "b")), (2, ("x", "y", "z"))])
def test_labels_of_folders_are_those_of_their_depth(depth, classes, tmp_path):
    """a/x, a/y and b/z: folder:1 is the outer one, folder:2 the one inside of it."""
    for place in ("a/x", "a/y", "b/z"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((4, 4), 60 * i, np.uint8)).save(tmp_path / place / f"{i}.png")
    assert tuple(data.load(str(tmp_path), label_column=f"folder:{depth}").train.label_names) == classes


def test_balanced_accuracy_counts_classes_that_are_never_predicted():
    """Two of class 0 right and the one of class 1 wrong are a half; a predicted class that none has counts nothing."""
    right = np.array([0, 0, 1])
    assert balanced(np.array([0, 0, 0]), right) == 0.5 and balanced(np.array([0, 0, 2]), right) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", [getattr(estimators, name) for name in estimators.__all__])
def test_an_estimator_is_that_of_its_random_state(kind):
    """The same number: the same weights and codes. Another: other ones."""
    x = np.random.default_rng(0).normal(size=(40, 3))
    y = (x[:, 0] > 0).astype(int)
    quick = {"budget": "16ex", "batch": 8, "verbose": 0, "settings": {"decoder.width": 4, "encoder.width": 4}}
    found = []
    for state in (0, 0, 1):
        own = {"encoder": DiffusionEncoder(**quick)} if kind is DiffusionClassifier else quick
        fitted = kind(random_state=state, **own).fit(x, y)
        model = (fitted.encoder_ if kind is DiffusionClassifier else fitted).run_.model
        found.append(torch.cat([value.flatten().double() for value in model.state_dict().values()]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_the_entropy_of_examples_weighs_those_that_repeat():
    """Three of one kind and one of another: 3/4 ln 4/3 + 1/4 ln 4 nats, of two different examples."""
    digests = np.repeat(np.array([[1], [2]], np.uint8), (3, 1), 0).repeat(32, 1)
    nats, different = replace(examples_of(np.zeros((4, 1), np.float32)), digests=digests).entropy()
    assert nats == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4)) and different == 2


def test_a_log_mel_picture_hears_both_channels():
    """A sine in the right channel alone is half as high in their mean: 20 log10 2 = 6 dB below that of both."""
    sine = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype(np.float32)
    both, right = log_mel(np.stack([sine, sine]), 8000), log_mel(np.stack([0 * sine, sine]), 8000)
    assert both.max() - right.max() == pytest.approx(20 * math.log10(2), abs=1e-3)
