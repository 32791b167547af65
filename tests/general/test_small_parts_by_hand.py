"""Small parts, each with an answer that is worked out by hand: mistakes in them had passed all other tests."""

import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageOps
from scipy.io import wavfile
from torch import nn

from diffrep import data
from diffrep.codes.build import random
from diffrep.config import CodeSettings, Settings, override
from diffrep.data.feature_files import _single
from diffrep.data.pictures import _sized, decode, header
from diffrep.data.readers.recordings import _signal
from diffrep.data.readers.tables import Pictures, Piece
from diffrep.data.reading import Reading
from diffrep.data.stores import InMemory, Standardised
from diffrep.data.streams import source as stream
from diffrep.data.values import Extent, scaled
from diffrep.errors import UserError
from diffrep.estimators import DiffusionEncoder
from diffrep.estimators.encoder import form_of
from diffrep.estimators.forms import _as_it_was, _grid
from diffrep.estimators.sizes import sizes
from diffrep.methods.catalog import build
from diffrep.models.generative import AT_ONCE, in_batches
from diffrep.models.latent_diffusion import LatentDiffusion
from diffrep.nets.blocks import SpatialAttention
from diffrep.nets.encoders import MLPEncoder
from diffrep.nets.plain import PlainDecoder
from diffrep.pages.tiles import tiles
from diffrep.probes.few_labels import few_labels
from diffrep.probes.mlp import _tensors
from diffrep.runs.card import splits_of
from diffrep.runs.records import DISTANCE, METRICS, PROBES, PROFILE
from diffrep.runs.restored import table as restored_table
from diffrep.runs.summary import Numbers, _seconds, accuracies, numbers
from diffrep.shapes import Facts
from diffrep.studies.aggregate import _number
from diffrep.studies.figures import curves, frontier, probe_bars
from diffrep.studies.row import Row
from diffrep.studies.study import Cuts
from diffrep.studies.table import Number, Table
from small import NARROW


def row(seed: int = 0, **numbers) -> Row:
    return Row(f"a-seed{seed}", "a", "vae-vdm", True, seed, {}, numbers=Numbers(**numbers))


def test_silence_of_a_sound_of_8_bits_is_128(tmp_path):
    """0, 128 and 255 of unsigned bytes are -1, 0 and 127/128."""
    wavfile.write(tmp_path / "a.wav", 8000, np.array([0, 128, 255], np.uint8))
    signal, reading = _signal(tmp_path / "a.wav", Reading())
    assert signal.tolist() == [[-1.0, 0.0, 127 / 128]] and reading.rate == 8000


def test_a_picture_is_named_by_the_row_of_its_file():
    """Files of three and two rows: the fourth is row 0 of the second."""
    pieces = [Piece(pa.table({"x": [b""] * n}), name) for name, n in (("one", 3), ("two", 2))]
    pictures = Pictures(pa.chunked_array([[b""] * 5]), [None] * 5, pieces)
    assert [pictures.origin(i) for i in (0, 2, 3, 4)] == [("one", 0), ("one", 2), ("two", 0), ("two", 1)]


def test_values_outside_of_their_range_are_refused_but_for_rounding():
    """From 0 to 1: a millionth outside is rounding, a tenth is not."""
    asked = Reading(range=(0.0, 1.0), levels=0)
    assert scaled(Extent(-1e-6, 1 + 1e-6, False, "float32"), "x", asked) == asked
    for low, high in ((-0.1, 1.0), (0.0, 1.1)):
        with pytest.raises(UserError, match="expected 0 to 1"):
            scaled(Extent(low, high, False, "float32"), "x", asked)


def test_a_gap_is_filled_by_the_mean_of_its_column_in_training(tmp_path):
    """0, 0 and 9 of the training rows: 3; the median would be 0, and the mean of all rows another."""
    numbers = {"train": ("0", "0", "9", ""), "valid": ("70", "80"), "test": ("90", "95")}
    rows = [f"{split},{number},{i}" for split, those in numbers.items() for i, number in enumerate(those)]
    (tmp_path / "a.csv").write_text("\n".join(["split,a,b", *rows]))
    assert data.load(str(tmp_path / "a.csv")).train.reading.fills == {"a": 3.0}


def test_sizes_of_an_estimator_follow_its_rows():
    """80 rows of 20 numbers: a code of a tenth of the rows, a tenth of the width, batches of a quarter."""
    found = sizes(80, (20,), {"train.lr": "auto", "decoder.width": 5})
    assert (found["code.dim"], found["encoder.width"], found["decoder.width"], found["train.batch"]) == (8, 4, 5, 20)
    assert found["train.budget"] == "16000ex" and "train.lr" not in found
    assert sizes(10, (20,), {})["train.budget"] == "4000ex" and sizes(10**6, (20,), {})["train.budget"] == "100000ex"


def test_whole_numbers_come_back_as_the_nearest():
    """2.6 of a column of int64 is 3, and not cut to 2."""
    assert _as_it_was(np.array([2.6, -1.7]), np.dtype("int64")).tolist() == [3, -2]


def test_samples_of_an_estimator_are_those_of_their_random_state(monkeypatch):
    """The seed that reaches the model is drawn from the number that was given."""
    seeds: list[int] = []
    monkeypatch.setattr("diffrep.estimators.encoder.check_is_fitted", lambda *_: None)
    said = "diffrep.estimators.codes.sampled"
    monkeypatch.setattr(said, lambda model, n, seed: seeds.append(seed) or np.zeros((n, 2)))
    fitted = DiffusionEncoder()
    fitted.run_, fitted._form = SimpleNamespace(model=None, scaling=lambda: None), None
    for state in (0, 0, 1):
        fitted.sample(3, random_state=state)
    assert seeds[0] == seeds[1] != seeds[2]


def test_attention_adds_to_what_it_reads():
    """With an output of zero nothing is changed."""
    block = SpatialAttention(8)
    nn.init.zeros_(block.attention.out.weight)
    nn.init.zeros_(block.attention.out.bias)
    h = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(block(h), h)


def test_a_dropped_code_is_the_null_code_in_your_own_decoder():
    """A network that gives its code back: of two examples the second is dropped; without codes both are."""

    class Echo(nn.Module):
        def forward(self, x_t, log_snr, z):
            return z

    decoder = PlainDecoder(Echo(), (2,), code_dim=2)
    nn.init.constant_(decoder.null, 7.0)
    x, t, z = torch.zeros(2, 2), torch.zeros(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert decoder(x, t, z, drop=torch.tensor([False, True])).tolist() == [[1, 2], [7, 7]]
    assert decoder(x, t, z).tolist() == z.tolist() and decoder(x, t).tolist() == [[7, 7], [7, 7]]


@pytest.mark.parametrize("asked, nats", [(None, 5.0), (2.0, 2.0)])
def test_a_fixed_rate_is_the_one_that_is_asked_for(asked, nats):
    """KL to N(0, I) by hand: 1/2 (|mean|^2 + d s^2 - d) - d log s; that of the method where none is named."""
    posterior = random(CodeSettings(kind="fixed-rate", rate=asked), 3, MLPEncoder((4,), 8, 1), rate=5.0)
    code = posterior(torch.randn(6, 4))
    kl = (code.mean**2 + code.spread**2 - 1).sum(1) / 2 - code.spread.log().sum(1)
    torch.testing.assert_close(kl, torch.full((6,), nats))


def test_a_prior_of_diffusion_is_measured_at_eight_times_as_many_noise_levels(monkeypatch):
    """4 for each code in training, 32 in evaluation."""
    prior, sizes_ = LatentDiffusion(2, width=8, blocks=1), []
    loss = prior.model.loss
    monkeypatch.setattr(prior.model, "loss", lambda batch: sizes_.append(len(batch)) or loss(batch))
    for mode in (True, False):
        prior.train(mode).log_prob(torch.randn(3, 2))
    assert sizes_ == [3 * 4, 3 * 32]


def test_each_example_that_is_made_has_noise_of_its_own():
    """Over the end of a batch too, and the same whatever their number."""
    made = in_batches(AT_ONCE + 5, 3, torch.device("cpu"), lambda rows, draws: draws.normal(rows.stop - rows.start, 2))
    assert len(made.unique(dim=0)) == AT_ONCE + 5
    few = in_batches(7, 3, torch.device("cpu"), lambda rows, draws: draws.normal(rows.stop - rows.start, 2))
    assert torch.equal(made[:7], few)


def test_few_labels_measure_test_by_the_scale_of_training():
    """Features that are a hundred times as large say the same."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.normal(size=(90, 4)) + 1.2 * np.eye(4)[y]
    one, two = (few_labels((by * x[:60], y[:60]), (by * x[60:], y[60:]), 2, repeats=4) for by in (1.0, 100.0))
    assert one["accuracy"] == two["accuracy"] < 1


def test_a_volume_is_shown_by_its_middle_slice():
    """Black but for the slice in the middle of five."""
    x = -torch.ones(1, 1, 5, 3, 3)
    x[:, :, 2] = 1
    assert (tiles(x)[..., :3] == 255).all()


def test_the_interval_of_few_labels_is_two_errors_to_each_side():
    """Over draws, 0.8 with an error of 0.03; of other probes it is the one that they state."""
    found = accuracies({"few-1": {"accuracy": 0.8, "se": 0.03, "test_se": 0.02, "examples": 50}}, ("few-1",))
    error = found["probe_few1_se"]
    assert (found["probe_few1_low"], found["probe_few1_high"]) == pytest.approx((0.8 - 2 * error, 0.8 + 2 * error))
    found = accuracies({"knn": {"accuracy": 0.8, "se": 0.03, "low": 0.7, "high": 0.9, "examples": 50}}, ("knn",))
    assert (found["probe_knn_low"], found["probe_knn_high"]) == (0.7, 0.9)


def test_seconds_of_a_run_are_those_of_its_last_whole_line(tmp_path):
    """A kill may have cut the line behind it."""
    lines = [json.dumps({"step": k, "seconds": float(k)}) for k in (1, 2)]
    (tmp_path / "timings.jsonl").write_text("\n".join([*lines, '{"step": 3, "sec']))
    assert _seconds(tmp_path) == 2.0


def test_accuracies_over_seeds_share_their_test_examples():
    """Of two seeds that agree to 0.01, the interval is that of the test examples, which is wider; and the other way."""
    for apart, ends in ((0.01, (0.7, 0.9)), (0.2, (0.4, 1.2))):
        values = (0.8 - apart, 0.8 + apart)
        rows = [row(s, probe_knn=v, probe_knn_low=0.7, probe_knn_high=0.9) for s, v in enumerate(values)]
        assert _number(rows, "probe_knn", 4).interval() == pytest.approx(ends)


def test_a_column_stays_where_one_run_lacks_it():
    """It goes where all do."""
    rows = (("a", Number(1.0), Number(None)), ("b", Number(None), Number(None)))
    assert Table(("run", "here", "nowhere"), rows).without_empty().columns == ("run", "here")


def test_a_point_of_the_frontier_has_two_errors_to_each_side(monkeypatch):
    """2.0 bits at 3.0 nats with an error of 0.1: from 1.8 to 2.2. Refined codes are a point of their own."""
    from matplotlib.axes import Axes

    drawn: list[tuple] = []
    plain = Axes.errorbar
    monkeypatch.setattr(Axes, "errorbar", lambda axes, *a, **k: drawn.append((*a, *k["yerr"])) or plain(axes, *a, **k))
    refined = {"refined_rate_nats": 4.0, "refined_bits_per_dim": 1.5, "refined_bits_per_dim_se": 0.05}
    frontier([row(rate_nats=3.0, bits_per_dim=2.0, bits_per_dim_se=0.1, **refined)])
    assert drawn == [((3.0,), (2.0,), 0.2), ((4.0,), (1.5,), 0.1)]


@pytest.mark.parametrize("turned", [False, True])
def test_a_picture_is_cut_to_its_middle_and_averaged(turned):
    """Of 2 x 8 the columns 3 to 6 are kept for 1 x 2, each number the mean of a square of four; upright it is the same.
    The mean of 2, 3, 10 and 11 is 6.5, and 6 as the nearest even whole number."""
    wide = np.arange(16).reshape(2, 8)
    picture, size = (wide.T, (2, 1)) if turned else (wide, (1, 2))
    assert _sized(picture.astype(np.float32), size).ravel().tolist() == [6.5, 8.5]
    assert _sized(picture.astype(np.uint8), size).ravel().tolist() == [6, 8]
    colour = np.stack([picture, 2 * picture], -1).astype(np.float32)
    assert _sized(colour, size).reshape(2, 2).tolist() == [[6.5, 13.0], [8.5, 17.0]]


def test_labels_that_are_one_in_k_are_the_place_of_the_one():
    """Of three classes, so that the place of a zero is another."""
    one_in_k = np.eye(3)[[2, 0, 1]]
    assert _single(one_in_k, "y", Path("a.npz")).tolist() == [2, 0, 1]
    assert _single(one_in_k[:, :1], "y", Path("a.npz")).tolist() == [0, 1, 0]


def test_a_large_number_is_centred_before_it_loses_digits():
    """Seconds since 1970 that are one apart, in float64, as float32 afterwards."""
    seconds = 1.7e9 + torch.arange(3, dtype=torch.float64)[:, None]
    rows = Standardised(InMemory(seconds), seconds.mean(0), torch.ones(1, dtype=torch.float64))
    standard = rows.raw(torch.arange(3))
    assert standard.flatten().tolist() == [-1, 0, 1] and standard.dtype == torch.float32
    assert rows.subset(torch.tensor([2])).raw(torch.tensor([0])).item() == 1


def test_an_exact_reconstruction_takes_its_steps_both_ways(monkeypatch):
    """From the example to its noise, and back."""
    model, taken = build(override(Settings(), ["method=vdm", *NARROW]), Facts((3,), None)).eval(), []
    invert, decode = model.invert, model.decode
    monkeypatch.setattr(model, "invert", lambda x, steps, *a: taken.append(steps) or invert(x, steps, *a))
    monkeypatch.setattr(model, "decode", lambda z, n, d, s, *a: taken.append(s.steps) or decode(z, n, d, s, *a))
    model.reconstruct_exactly(torch.randn(2, 3), steps=3)
    assert taken == [3, 3]


def test_a_class_that_training_lacks_is_no_class_of_a_perceptron():
    """Classes 2 and 5: a label of 3, or of 9, is neither, and no epoch is better for it."""
    x, y = _tensors((np.zeros((4, 1)), np.array([5, 3, 2, 9])), np.array([2, 5]))
    assert y.tolist() == [1, -1, 0, -1] and x.shape == (4, 1)


def test_every_number_of_a_run_comes_from_its_own_place(tmp_path, monkeypatch):
    """Files whose numbers all differ; 600 examples in 3 seconds are 200 a second."""

    def probed(start: float) -> dict[str, float]:
        return {"accuracy": start, "se": start + 0.01, "low": start + 0.02, "high": start + 0.03}

    beside = {"balanced": 0.44, "auroc": 0.45}
    linear, voted, one, ten = map(probed, (0.4, 0.5, 0.6, 0.7))
    metrics = {
        "bound": {"bits_per_dim": 1.0, "bits_per_dim_se": 2.0}, "rate_nats": 3.0, "active_units": 4, "parameters": 5,
        "refined": {"bits_per_dim": 6.0, "bits_per_dim_se": 7.0, "rate_nats": 8.0}, "trained": {"examples": 600},
        "probes": {"linear": 0.4, "linear_protocol": {**linear, **beside}, "knn": 0.5, "knn_protocol": voted},
    }  # fmt: skip
    files = {
        METRICS: metrics, PROFILE: {"integral_nats": 9.0, "integral_se": 10.0}, DISTANCE: {"frechet": 11.0},
        PROBES: {"scores": {"code": {"few-1": one, "few-10": ten}, "pixels": {"few-1": voted, "few-10": voted}}},
    }  # fmt: skip
    monkeypatch.setattr("diffrep.runs.summary.current", lambda directory: files)
    (tmp_path / "timings.jsonl").write_text('{"seconds": 3.0}\n')
    parts = {"linear": linear, "knn": voted, "few1": one, "few10": ten}
    ends = (("", "accuracy"), ("_se", "se"), ("_low", "low"), ("_high", "high"))
    wanted = {f"probe_{name}{end}": part[key] for name, part in parts.items() for end, key in ends}
    wanted |= {f"probe_linear_{name}": value for name, value in beside.items()}
    wanted |= {"bits_per_dim": 1, "bits_per_dim_se": 2, "rate_nats": 3, "active_units": 4, "parameters": 5}
    wanted |= {"refined_bits_per_dim": 6, "refined_bits_per_dim_se": 7, "refined_rate_nats": 8}
    wanted |= {"information_nats": 9, "information_nats_se": 10, "frechet": 11}
    wanted |= {"examples": 600, "seconds": 3, "images_per_second": 200}
    assert asdict(numbers(tmp_path)) == pytest.approx(wanted)


def test_counts_come_back_as_counts():
    """The logarithm of one more than 0, 1 and 9,999 of a row; what lies below 0 is none."""
    reading = Reading(features=("a", "b", "c", "d"), counts=True)
    came = restored_table(reading, np.array([[0.0, math.log(2), math.log(10_000), -0.1]])).to_pylist()
    assert came == [{"a": 0, "b": pytest.approx(1), "c": pytest.approx(9999), "d": 0}]


def test_the_sample_of_a_stream_is_of_every_place(monkeypatch):
    """Eight rows of four shards of ten: the first two of each; of shards of one row and of twenty, one and seven."""
    monkeypatch.setattr(stream, "SAMPLE", 8)

    def sampled(*counts: int) -> list[tuple[int, int]]:
        tables = [pa.table({"x": [(place, i) for i in range(count)]}) for place, count in enumerate(counts)]
        shards = [SimpleNamespace(count=len(t), tables=lambda start, t=t: iter([t])) for t in tables]
        return [tuple(x) for part in stream.sample(shards) for x in part["x"].to_pylist()]

    assert sampled(10, 10, 10, 10) == [(place, i) for place in range(4) for i in range(2)]
    assert sampled(1, 20) == [(0, 0), *((1, i) for i in range(7))]


def test_each_seed_of_a_study_has_a_cut_of_its_own():
    """That of `runs.splits_of`; the same settings again have the one that is kept."""
    cuts = Cuts()
    for seed in (0, 1, 0):
        asked = override(Settings(), [f"seed={seed}", "data.source=digits"])
        assert cuts.of(asked).test.fingerprint == splits_of(asked).test.fingerprint
        assert cuts.of(asked) is cuts.of(asked)


def test_no_held_out_row_of_an_estimator_is_trained_on():
    """A tenth of forty rows is held out, and the others are trained on; with fewer than twenty all are both."""
    x = np.random.default_rng(0).normal(size=(40, 3))
    estimator = DiffusionEncoder()
    estimator._form = form_of(x, None)
    splits = estimator._splits(x, None, 0)
    train, held = ({row.tobytes() for row in part.digests} for part in (splits.train, splits.test))
    assert (len(train), len(held), len(train | held)) == (36, 4, 40)
    few = estimator._splits(x[:10], None, 0)
    assert len(few.train) == len(few.test) == 10


@pytest.mark.parametrize(
    "values, x",
    [
        (np.array([[-5.0, 1.0, 7.0]]), [-1, 0, 1]),  # of no known range: from the least to the largest
        (np.array([[10.0, 10.5, 12.0]]), [-1, -0.5, 1]),
        (np.array([[0.0, 0.5, 1.0]]), [-1, 0, 1]),
        (np.array([[-1.0, 0.25, 0.5]]), [-1, 0.25, 0.5]),
        (np.array([[0, 255, 100]], np.uint8), [-255 / 256, 255 / 256, 201 / 256 - 1]),
        (np.array([[0.0, 3.0, 1.0]]), [-0.75, 0.75, -0.25]),  # whole: four grey levels
        (np.array([[False, True, True]]), [-0.5, 0.5, 0.5]),
    ],
)
def test_the_scale_of_an_estimator_and_back(values, x):
    grid = _grid(values)
    assert grid.x(grid.store(values)).tolist() == [pytest.approx(x)]
    assert grid.values(np.array([x])).tolist() == [pytest.approx(values[0].astype(float).tolist())]


def test_bars_and_curves_of_probes_have_two_errors_to_each_side(monkeypatch):
    """Seeds at 0.7 and 0.9: a mean of 0.8 with an error of 0.1, so the bar reaches 0.2; of one seed its own error."""
    from matplotlib.axes import Axes

    drawn: list[tuple[list, list]] = []
    bar, error = Axes.barh, Axes.errorbar
    monkeypatch.setattr(Axes, "barh", lambda a, y, w, **k: drawn.append((w, k["xerr"])) or bar(a, y, w, **k))
    monkeypatch.setattr(Axes, "errorbar", lambda a, x, y, **k: drawn.append((y, k.get("yerr"))) or error(a, x, y, **k))
    of = [row(seed, probe_linear=value, seconds=5.0) for seed, value in enumerate((0.7, 0.9))]
    probe_bars(of)
    assert drawn[0] == ([pytest.approx(0.8)], [pytest.approx(0.2)])
    drawn.clear()
    curves([of, [row(0, probe_linear=0.6, probe_linear_se=0.05, seconds=9.0)]])
    assert [list(part) for part in drawn[0]] == [pytest.approx([0.8, 0.6]), pytest.approx([0.2, 0.1])]


@pytest.mark.parametrize("tag", range(1, 9))
def test_a_photograph_is_turned_as_its_tag_says(tag):
    """All eight ways, mirrored ones too, are those of Pillow; the size is known before that."""
    picture, exif, file = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)), Image.Exif(), io.BytesIO()
    exif[0x0112] = tag
    picture.save(file, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    assert np.array_equal(decode(file.getvalue(), "a", "L")[0], upright)
    assert header(file.getvalue(), "a") == ("L", upright.shape)
