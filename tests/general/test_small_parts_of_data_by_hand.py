"""Small parts of what reads data and of what is said of runs, each with an answer that is worked out by hand."""

import math
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import sparse

from diffrep import data
from diffrep.commands.outputs import write
from diffrep.config import override
from diffrep.data.columns import expanded
from diffrep.data.layout import channels_first
from diffrep.data.raw import numbered
from diffrep.data.readers.arrays import _flattened, of_arrays
from diffrep.data.readers.cells import SparseRows
from diffrep.data.readers.csv_files import _has_header
from diffrep.data.readers.objects import array
from diffrep.data.reading import Reading
from diffrep.data.values import HEAD, Extent, scaled
from diffrep.denoising.samplers import Sampling
from diffrep.errors import UserError
from diffrep.estimators import DiffusionEncoder
from diffrep.evaluation import pilot as pilots
from diffrep.files import plain
from diffrep.measures.distance import distance
from diffrep.measures.probe import _about, _targets
from diffrep.measures.semi import semi
from diffrep.methods.catalog import build
from diffrep.models import step_terms
from diffrep.pages.explorer import Explorer
from diffrep.pages.run_pictures import _interpolate
from diffrep.probes.disentanglement import _one_sidedness
from diffrep.probes.neighbours import spreading
from diffrep.runs.callbacks import Patience
from diffrep.runs.card import DataCard, _former_splits
from diffrep.runs.run import Run, _fit_prior
from diffrep.runs.summary import accuracies
from diffrep.shapes import Batch, Draws
from diffrep.studies import compare as comparison
from tiny import EVERY, base, settings


class Group(dict):
    """A group of HDF5."""

    attrs: dict


def test_any_cells_of_a_sparse_file_are_their_rows():
    """Every choice of rows of six, with gaps or without, is that of the dense matrix; one row is empty."""
    dense = np.arange(30.0).reshape(6, 5) % 4
    dense[2] = 0
    whole = sparse.csr_matrix(dense)
    group = Group(data=whole.data, indices=whole.indices, indptr=whole.indptr)
    group.attrs = {"shape": dense.shape}
    stored = SparseRows(group)
    for size in range(7):
        for rows in combinations(range(6), size):
            chosen = np.array(rows, dtype=np.int64)
            assert np.array_equal(stored[chosen].toarray(), dense[chosen]), rows


@pytest.mark.parametrize("last, classes", [([0, 0, 1], True), ([0, 0, 0], False), ([0, 1, 1], False)])
def test_labels_are_one_in_k_where_each_example_has_one(last, classes):
    """One of three is a class; a row of none, or of two, makes three numbers of an example."""
    columns, reading = _flattened({"y": np.array([[1, 0, 0], [0, 1, 0], last])}, "a.npz", Reading())
    assert columns["y"].tolist() == [0, 1, 2] if classes else sorted(columns) == ["y_0", "y_1", "y_2"]
    assert (reading == Reading()) == classes


@pytest.mark.parametrize(
    "kind, high, said",
    [
        ("int64", 511, "data.levels=512 for 9 bits"),
        ("int64", 512, "data.levels=1024 for 10 bits"),
        ("int64", 1023, "data.levels=1024 for 10 bits"),
        ("uint16", 255, "data.levels=256 if they have 8 bits"),
        ("uint16", 256, "data.levels=512 if they have 9 bits"),
        ("uint16", 4095, "data.levels=4096 if they have 12 bits"),
        ("uint16", 1, "data.levels=2 if they have 1 bit."),
    ],
)
def test_levels_that_are_proposed_hold_the_largest_number(kind, high, said):
    reading = scaled(Extent(0.0, float(high), True, kind), "x", Reading())
    assert any(said in doubt for doubt in reading.doubts() if doubt)


def test_numbers_of_classes_are_regressed_on_with_the_first_of_them():
    """Class 0 is a number as the others are; -1 is none."""
    columns = [np.array([0, 2, -1]), np.array([1]), np.array([0])]
    (train_, valid, test), numbers, _ = _targets(columns, "label", ("regression",), given=["0", "1", "2"])
    assert numbers and train_[:2].tolist() == [0.0, 2.0] and math.isnan(train_[2])
    assert (valid.tolist(), test.tolist()) == ([1.0], [0.0])


def test_compared_runs_state_their_own_facts(monkeypatch):
    """Each side is of its own run: method, seed, the fingerprint of its test split."""
    seeds = {base("vae").directory: 3, base("ae").directory: 5}
    read = comparison.settings_of
    monkeypatch.setattr(comparison, "settings_of", lambda place: override(read(place), [f"seed={seeds[place]}"]))
    for (place, seed), side in zip(seeds.items(), comparison.compare([*seeds]).runs, strict=True):
        assert (side.method, side.seed) == (read(place).method, seed)
        assert side.fingerprint == base("vae").card.fingerprints["test"] != base("vae").card.fingerprints["train"]


def test_the_noise_axis_of_the_explorer_goes_from_noise_to_data():
    noise = base("vae-vdm").model.noise
    explorer = SimpleNamespace(diffusion=SimpleNamespace(noise=noise), run=SimpleNamespace(device=torch.device("cpu")))
    low, high = Explorer.log_snr_ends.fget(explorer)
    assert low < high
    assert low == pytest.approx(float(noise.log_snr(torch.ones(1))), abs=1e-4)
    assert high == pytest.approx(float(noise.log_snr(torch.zeros(1))), abs=1e-4)


def test_patience_looks_with_the_same_noise_each_time():
    """The same weights have the same number, however long it has waited; so three lines later it ends."""
    run = base("vae")
    patience = Patience(run.model, run.splits().valid, 3)
    seen = []
    for step in range(3):
        seen.append({"step": step, "watch": {}})
        patience.on_log(seen[-1])
    assert len({line["watch"]["valid"] for line in seen}) == 1 and patience.waited == 2
    with pytest.raises(Exception, match="was best 3 logged lines ago"):
        patience.on_log({"step": 3, "watch": {}})


def test_equal_examples_of_a_run_come_back_one_by_one():
    """Every picture is there three times with other labels: each is restored once. Where one is gone, so is the cut."""
    x = np.repeat(np.eye(4, 9, dtype=np.uint8).reshape(4, 3, 3) * 255, 3, axis=0)
    splits, every = data.load((x, np.arange(12))), data.whole((x, np.arange(12)))
    former = _former_splits(every, DataCard.of(splits))
    assert sorted(k for split in former for k in split.labels.tolist()) == [*range(12)]
    fewer = data.whole((x[1:], np.arange(11)), reading=every.reading)
    assert _former_splits(fewer, DataCard.of(splits)) is None


def test_the_labels_of_a_spread_are_those_of_its_classes():
    """Two classes, two labels each: four, although most of training has none."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.array([0, 1] * 6 + [-1] * 28)
    said = spreading((x, y), (x[:10], y[:10]), 2, repeats=2)
    assert (said["train_examples"], said["per_class"], said["examples"]) == (4, 2, 10)


@pytest.mark.parametrize("method", ["vae-vdm", "ddpm"])
def test_the_card_of_a_run_states_mean_and_variance_of_its_training(method):
    """Of its one channel, over all numbers of the training examples, in [-1, 1], dividing by their count."""
    run = base(method)
    train = run.splits().train
    x = train.batch(torch.arange(len(train))).x.double().numpy()
    (mean,), (variance,) = run.card.moments
    assert (mean, variance) == (pytest.approx(x.mean(), rel=1e-5), pytest.approx(x.var(), rel=1e-5))


def test_the_most_frequent_class_is_that_of_training():
    """0 in training, 1 in test: who says 0 is right once in four."""
    about = _about("label", ["a", "b"], [np.array([0, 0, 1, -1]), np.array([0]), np.array([0, 1, 1, 1, -1])], 0)
    assert about["most_frequent"] == 0.25 and about["classes"] == 2
    assert about["examples"] == {"train": 3, "valid": 1, "test": 4}


def test_what_a_column_of_pandas_lacks_is_missing():
    """A number that is not there is nan and a word None, and no zero."""
    pd = pytest.importorskip("pandas")
    assert array(pd.Series(["x", None])).tolist() == ["x", None]
    numbers = array(pd.Series([1.5, None, 3])).tolist()
    assert (numbers[0], numbers[2]) == (1.5, 3.0) and math.isnan(numbers[1])


def test_the_scaling_of_a_run_has_all_digits():
    """Unix seconds are larger than the whole numbers of float32."""
    card = SimpleNamespace(scaling=([1.7e9 + 0.25], [1 + 1e-9]))
    mean, std = Run.scaling(SimpleNamespace(card=card))
    assert (mean.tolist(), std.tolist()) == card.scaling


def test_the_noise_of_a_pilot_is_no_difference_between_examples():
    """Bounds that differ with variance 250, and noise with variance 1,600 in each of 16 stretches: 100 of the variance
    of a mean are of the pilot. Levels are so many that their variance is THIRD^2 of 250, and not of 350."""
    generator = torch.Generator().manual_seed(0)
    n, stretches = 8192, 16
    f = 40 * torch.randn(n, stretches, generator=generator, dtype=torch.float64)
    v = torch.rand(n, stretches, generator=generator, dtype=torch.float64)
    whole = 250**0.5 * torch.randn(n, generator=generator, dtype=torch.float64) + f.mean(1)
    plan = pilots._plan(f, [torch.zeros_like(f)], v, (), whole, 0.0, n)
    assert plan.levels == pytest.approx(plan.variance / (pilots.THIRD**2 * 250), rel=0.12)


def test_a_pilot_looks_at_examples_from_the_first_to_the_last(monkeypatch):
    """Of 1,280 examples 128, evenly: none of the classes of sorted data is left out."""
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(pilots, "batches", lambda examples, size, seed, device, rows: iter(seen.append(rows) or ()))
    examples = data.whole((np.zeros((1280, 4, 4), np.uint8), np.zeros(1280, int)))
    with pytest.raises(ValueError, match="not enough values"):
        pilots.pilot(base("vae").model, examples, torch.device("cpu"))
    (rows,) = seen
    assert (len(rows), int(rows[0]), int(rows[-1])) == (128, 0, 1279)
    assert set(rows.diff().tolist()) <= {10, 11}


def test_a_finite_chain_is_trained_by_its_own_loss():
    """noise.steps=4: the term of the training is that of four steps, at times on their grid; without, that of VDM."""
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for changes, right, other in (
        (("noise.steps=4",), step_terms.in_steps(4), step_terms.denoise),
        ((), step_terms.denoise, step_terms.in_steps(4)),
    ):
        model = build(settings("vdm", *changes), base("vae").card.facts())
        step = model.noised(Batch(x.sign(), torch.arange(6), draws=Draws.of(0)))
        own = model.terms["diffusion"](step)
        assert torch.equal(own, right(step)) and not torch.allclose(own, other(step), rtol=1e-3)


@pytest.mark.parametrize("method", EVERY)
def test_a_rate_that_is_logged_is_of_one_example(method):
    """It lies between the least and the largest rate of the batch, of whose examples each weighs the same."""
    x = (torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5) * 2.0 - 1
    model = build(settings(method), base("vae").card.facts(), warn=False)
    model.loss(Batch(x, torch.arange(6), torch.arange(6) % 2, draws=Draws.of(0)))
    rate, drawn = model.health.get("rate_nats"), getattr(model, "drawn", None)
    if rate is not None and drawn is not None:  # not of a code that depends on the noise level
        each = model.prior.rate(*drawn)
        assert float(each.min()) <= float(rate) <= float(each.max())


def test_given_names_of_classes_keep_their_numbers():
    """0 and 2 of three names are the first and the last, although nobody is of the second."""
    numbers, names = numbered(np.array([2, 0, -1, 2]), ["a", "b", "c"])
    assert (numbers.tolist(), names) == ([2, 0, -1, 2], ["a", "b", "c"])


def test_the_error_of_few_labels_is_that_over_test_examples_too():
    """In tables: of the scatter over draws, .03, and that over test splits, .04, both: .05. Wilson's ends stay."""
    few = {"accuracy": 0.5, "se": 0.03, "test_se": 0.04, "low": 0.45, "high": 0.55}
    named = {"probe_few10": 0.5, "probe_few10_se": 0.05, "probe_few10_low": 0.4, "probe_few10_high": 0.6}
    assert accuracies({"few-10": few}, ("few-10",)) == pytest.approx(named)
    plain = {"accuracy": 0.5, "se": 0.1, "low": 0.45, "high": 0.75, "examples": 9}
    assert accuracies({"knn": plain}, ("linear", "knn")) == pytest.approx(
        {"probe_knn": 0.5, "probe_knn_se": 0.1, "probe_knn_low": 0.45, "probe_knn_high": 0.75}
    )


def test_a_prior_is_fitted_to_codes_and_not_to_their_means():
    """What it sees scatters about the means as the spread says: (z - mean) / spread has variance 1."""
    run, seen = base("vae"), []
    train_ = run.splits().train
    _fit_prior(run.model, SimpleNamespace(fit=seen.append), train_)
    order = torch.randperm(len(train_), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        code = run.model.encode(train_.batch(order).x)
    white = (seen[0] - code.mean) / code.spread
    assert white.shape == (48, 4) and 0.7 < float(white.square().mean()) < 1.4


def test_arrays_of_an_npz_are_each_their_own(tmp_path):
    """What was asked for is black, what stands beside it white."""
    black = -torch.ones(3, 1, 4, 4)
    write(base("vae"), {"reconstruction": black, "original": -black}, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        assert not arrays["reconstruction"].any() and arrays["original"].all()
    write(base("vae"), {"reconstruction": black, "original": -black}, tmp_path / "a.npy")
    assert not np.load(tmp_path / "a.npy").any()


def test_an_estimator_of_a_file_cuts_it_by_its_random_state(monkeypatch):
    """The seed of the cut is that of the settings: drawn from the number that was given."""
    seeds: list[int] = []

    def load(source, *, seed=0, **how):
        seeds.append(seed)
        raise UserError("enough")

    monkeypatch.setattr("diffrep.estimators.encoder.data", SimpleNamespace(load=load))
    for state in (0, 0, 1):
        with pytest.raises(UserError, match="enough"):
            DiffusionEncoder(random_state=state).fit("a.npz")
    assert seeds[0] == seeds[1] != seeds[2] and seeds[0] == np.random.RandomState(0).randint(2**31 - 1)


def test_few_labels_count_those_that_have_none():
    """Of 48 training examples two of each class have their label: 44 have not."""
    said = semi(base("ae"), labels_per_class=2, seeds=1, steps=1)
    assert (said["unlabelled_examples"], said["examples"], said["labels_per_class"]) == (44, 24, 2)


@pytest.mark.parametrize(
    "first, header",
    [
        (["a", "b", "c"], True),
        (["0", "1", "2"], True),
        (["1", "2", "3"], True),
        (["", "1", "2"], True),
        (["2", "3", "4"], False),
        (["1.5", "2", "a"], False),
    ],
)
def test_a_header_counts_or_has_no_number(first, header):
    assert _has_header([first, ["7", "8", "9"]]) == header
    assert _has_header([first])  # a line alone is a header of nothing


def test_an_array_that_fits_a_run_in_two_ways_is_channels_first():
    """3 x 3 x 3 numbers an example: as they stand."""
    x = np.random.default_rng(0).random((5, 3, 3, 3))
    made, _ = channels_first(x, "x", Reading(shape=(3, 3, 3), applied=True))
    assert np.array_equal(made, x)
    turned, _ = channels_first(np.moveaxis(x[:, :, :2], 1, -1), "x", Reading(shape=(3, 2, 3), applied=True))
    assert np.array_equal(turned, x[:, :, :2])


def test_the_fingerprint_of_an_array_in_memory_is_of_every_byte():
    """Pictures that differ in their last pixel alone, beyond the beginning that is looked at in a file."""
    x = np.zeros((5, 1, 1, HEAD + 8), np.uint8)
    other = x.copy()
    other[3, 0, 0, -1] = 1
    one, two = (data.whole(some).digests for some in (x, other))
    assert [i for i in range(5) if (one[i] != two[i]).any()] == [3]


def test_entropies_of_importances_have_the_base_of_their_number():
    """Of three: all alike 0, one alone 1, a half and two quarters 1 - 1.5 ln 2 / ln 3; one of one is alone."""
    made = _one_sidedness(np.array([[1.0, 1, 1], [0, 4, 0], [2, 1, 1], [0, 0, 0]]))
    assert made == pytest.approx([0, 1, 1 - 1.5 * math.log(2) / math.log(3), 0])
    assert _one_sidedness(np.array([[3.0]])) == pytest.approx([1])


def test_an_interpolation_has_the_covariate_of_its_first_end():
    """Pairs of 0 and 1, 2 and 3, 4 and 5."""
    asked: list[float] = []

    def interpolate(a, b, points, steps, covariate):
        asked.append(float(covariate))
        return torch.zeros(points, 1, 4, 4)

    pictures = SimpleNamespace(x=torch.zeros(6, 1, 4, 4), covariate=torch.arange(6.0)[:, None], why={}, between=None)
    _interpolate(pictures, SimpleNamespace(interpolate=interpolate), None)
    assert asked == [0.0, 2.0, 4.0] and len(pictures.between) == 3


def test_a_gap_is_named_by_its_first_row():
    """Column b lacks two numbers, the first in row 2."""
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, math.nan], [7.0, math.nan]], dtype=torch.float64)
    reading = SimpleNamespace(features=("a", "b"), number_names=lambda count: ["a", "b"], fills={}, words={})
    store = SimpleNamespace(raw=lambda rows: values, __len__=lambda: 4)
    raw = SimpleNamespace(reading=reading, values=SimpleNamespace(shape=(2,), store=store, digests=np.zeros((4, 32))))
    with pytest.raises(UserError, match=r"'b' of t\.csv lacks 2 numbers \(NaN\), the first in row 2,"):
        expanded(raw, "t.csv")


def test_names_of_rows_are_no_factor():
    """Of x, labels, names and hues the hues alone are."""
    x, words = np.zeros((4, 2, 2), np.uint8), np.array(["p", "q", "r", "s"])
    raw = of_arrays({"x": x, "y": np.arange(4) % 2, "id": words, "hue": np.arange(4) / 8}, "a.npz", Reading())
    assert [*raw.factors] == ["hue"] and raw.ids == ["p", "q", "r", "s"] and raw.labels.tolist() == [0, 1, 0, 1]


def test_what_json_cannot_say_is_null():
    """Not a number, and infinite; whole numbers and words stay."""
    facts = {"a": math.inf, "b": (-math.inf, math.nan, 1.5), "c": 3, "d": "inf"}
    assert plain(facts) == {"a": None, "b": [None, None, 1.5], "c": 3, "d": "inf"}


def test_folders_of_parquet_are_the_splits_that_they_are_called(tmp_path):
    """Twenty rows below train/ and six below test/, whatever the files are called; the test rows are those."""
    for folder, count, start in (("train", 20, 0.0), ("test", 6, 100.0)):
        (tmp_path / folder).mkdir()
        table = pa.table({"a": np.arange(count) + start + 0.5, "b": np.arange(count) * 0.25})
        pq.write_table(table, tmp_path / folder / "part.parquet")
    splits = data.load(str(tmp_path), valid=0.2)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (16, 4, 6)
    mean, std = splits.test.scaling
    a = splits.test.batch(torch.arange(6)).x[:, 0].double() * std[0] + mean[0]
    assert a.numpy() == pytest.approx(np.arange(6) + 100.5, rel=1e-5)


def test_a_distance_takes_no_more_samples_than_its_floor_has_examples():
    """Of 22 training and 24 test examples: 22, so that training against test is of as many."""
    splits = base("dsm").splits()
    fewer = replace(splits, train=splits.train.subset(torch.arange(22)))
    assert distance(base("dsm"), n=24, sampling=Sampling(steps=1), splits=fewer)["samples"] == 22
