"""An exported encoder gives the codes of its model, from raw examples, in a process that knows no torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import diffrep
from diffrep import data, runs
from diffrep.config import Settings, override
from diffrep.data.stores import Grid
from diffrep.estimators.encoder import form_of
from diffrep.evaluation.finetune import encoder_of
from diffrep.runs import export as exports
from diffrep.runs.preparation import Columns, GreyLevels, of_card
from runs_at_hand import diffrep as command
from runs_at_hand import one_sentence
from tiny import base, train

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def codes(path: Path, *inputs: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {one.name: x for one, x in zip(session.get_inputs(), inputs, strict=True)})[0]


@pytest.mark.parametrize("method", ["vae-vdm", "tdrl"])
def test_the_codes_are_the_models_on_any_batch(method, tmp_path):
    """Of raw examples; `Run.encode` is the other route. A time-conditioned encoder reads at the t it is told."""
    run = base(method)
    t = 0.3 if method == "tdrl" else None
    path = run.export(tmp_path / "encoder.onnx", t=t)
    for n in (1, 7, 64, 100):
        x = np.random.default_rng(n).integers(0, 2, (n, 4, 4)).astype(np.uint8)
        expected = run.encode(x.astype(bool), t).mean.numpy()
        np.testing.assert_allclose(codes(path, x), expected, rtol=1e-4, atol=1e-4)


def test_x_itself_may_be_the_input(tmp_path):
    """For programs that prepare examples themselves."""
    run, x = base("vae-vdm"), torch.rand(5, 1, 4, 4) - 0.5
    path = run.export(tmp_path / "encoder.onnx", prepared=True)
    np.testing.assert_allclose(codes(path, x.numpy()), run.model.encode(x).mean, rtol=1e-4, atol=1e-4)


def test_torch_export_gives_the_same(tmp_path):
    """The second kind of file, with the same facts beside it."""
    run = base("vae-vdm")
    path = run.export(tmp_path / "encoder.pt2")
    facts = {"diffrep.json": ""}
    again = torch.export.load(path, extra_files=facts).module()
    x = torch.randint(0, 2, (5, 4, 4), dtype=torch.uint8)
    np.testing.assert_allclose(again(x).detach(), run.encode(x.bool()).mean, rtol=1e-4, atol=1e-4)
    assert json.loads(facts["diffrep.json"])["code"] == 4


def test_a_file_says_what_goes_in_and_what_comes_out(tmp_path):
    """Without the run nobody would know the axes, the type and the classes."""
    path = base("vae-vdm").export(tmp_path / "encoder.onnx")
    session = ort.InferenceSession(str(path))
    facts = json.loads(session.get_modelmeta().custom_metadata_map["diffrep"])
    assert (facts["method"], facts["levels"], facts["classes"]) == ("vae-vdm", 2, ["0", "1"])
    (one,) = facts["inputs"]
    assert (one["axes"], one["type"], one["shape"]) == ("nhw", "uint8", [4, 4])
    assert session.get_inputs()[0].shape == ["batch", 4, 4] and session.get_outputs()[0].shape == ["batch", 4]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """A table of numbers with gaps, and words."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"price": 1e5 + 10 * rng.normal(size=60), "size": rng.normal(size=60)})
    frame["colour"] = rng.choice(["red", "green", "blue"], 60)
    frame.loc[::7, "size"] = np.nan
    path = tmp_path_factory.mktemp("mixed") / "table.csv"
    frame.to_csv(path, index=False)
    return path


def test_a_table_goes_in_as_its_columns(mixed, tmp_path):
    """Numbers with gaps as NaN and words by their place; the codes are those of the reader and the model."""
    run = train("vae-vdm", "data.columns=all", "data.label_column=", data=mixed)
    frame = pd.read_csv(mixed)
    path = run.export(tmp_path / "table.onnx")
    session = ort.InferenceSession(str(path))
    facts = json.loads(session.get_modelmeta().custom_metadata_map["diffrep"])
    numbers, words = facts["inputs"]
    places = [[words["words"]["colour"].index(w)] for w in frame["colour"]]
    came = codes(path, frame[numbers["columns"]].to_numpy(), np.array(places, np.int64))
    np.testing.assert_allclose(came, run.encode(str(mixed)).mean.numpy(), rtol=1e-4, atol=1e-4)


LAYOUTS = {"nhwc": (6, 5, 3), "nchw": (3, 6, 5), "nhw": (6, 5), "nlc": (40, 2), "ndhw": (3, 4, 5)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "range"])
def test_a_preparation_does_what_the_reader_does(layout, kind, tmp_path):
    """Two routes from an array to x: the reader's and the module's, for any order of axes and any scale."""
    rng = np.random.default_rng(0)
    x = rng.random((8, *LAYOUTS[layout]))
    x = x.astype(np.float32) if kind == "float32" else 90 * x - 30 if kind == "range" else (250 * x).astype(kind)
    how = {"range": (-30.0, 60.0)} if kind == "range" else {}
    splits = data.load(x, layout=layout, **how)
    prepare = of_card(runs.DataCard.of(splits))
    every = data.whole(x, layout=layout, **how)
    expected = every.batch(torch.arange(8)).x
    raw = torch.from_numpy(x.astype(prepare.inputs[0].type))
    torch.testing.assert_close(prepare(raw), expected)
    assert prepare.inputs[0].shape == LAYOUTS[layout]


def test_counts_are_prepared_as_the_reader_does(tmp_path):
    """Ten thousand a row, the logarithm, and standardised; a row without a count is one of zeros."""
    x = np.random.default_rng(0).poisson(1.0, (30, 12))
    x[::3] = 0
    splits = data.load(x, counts="yes")
    prepare = of_card(runs.DataCard.of(splits))
    raw = torch.from_numpy(x[splits.train.rows].astype(np.float64))
    torch.testing.assert_close(prepare(raw), splits.train.batch(torch.arange(len(raw))).x)


def test_grey_levels_of_a_range_fall_into_their_cells():
    """levels=4 from 0 to 3 times ten: rounded to the nearest, as `Grid` stores them."""
    grid = Grid(4, 0.1, 0.0)
    raw = torch.tensor([[0.0, 11.0, 26.0, 44.0]])
    made = GreyLevels((4,), 4, "nf", grid.slope, grid.shift)
    assert torch.equal(made(raw), grid.x(grid.store(raw.numpy())))


def test_a_hole_and_a_strange_word_become_what_the_table_says():
    """By hand: the mean, a number that marks it, and no word at all."""
    made = Columns(["a"], torch.zeros(4), torch.ones(4), {0: 5.0}, {"w": ("x", "y")}, [torch.eye(3)[:, :2]])
    x = made(torch.tensor([[float("nan")], [2.0]], dtype=torch.float64), torch.tensor([[-1], [1]]))
    assert x.tolist() == [[5, 1, 0, 0], [2, 0, 0, 1]]


def test_codes_that_differ_are_not_written(tmp_path, monkeypatch):
    """The check comes before the file: what was there stays, and nothing half lies beside it."""
    (tmp_path / "encoder.onnx").write_bytes(b"before")
    whole = exports._onnx

    def wrong(*given):
        content, again = whole(*given)
        return content, lambda x: again(x) + 1e-3

    monkeypatch.setattr(exports, "_onnx", wrong)
    with pytest.raises(diffrep.UserError, match=r"was not written: on a batch of 1 .* by 1.0e-03"):
        base("vae-vdm").export(tmp_path / "encoder.onnx")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"encoder.onnx": b"before"}


def test_exporting_changes_nothing_of_the_model():
    """Neither its mode nor its weights nor where they are."""
    run = base("vae-vdm")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    mode = run.model.training
    whole = exports.Encoding(of_card(run.card), encoder_of(run.model)).eval()
    exports._traced(whole, [torch.zeros(3, 4, 4).byte()])
    assert run.model.training == mode
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_mistakes_of_the_command_are_one_sentence(tmp_path, capsys):
    """Another suffix; a method without a code."""
    assert command("export", base("vae-vdm").directory, "-o", tmp_path / "encoder.tflite") == 2
    assert ".onnx or .pt2 file" in one_sentence(capsys)
    assert command("export", base("vdm").directory, "-o", tmp_path / "encoder.onnx") == 2
    assert "no code" in one_sentence(capsys)
    assert command("export", base("vae-vdm").directory, "-o", tmp_path / "encoder.onnx", "--json") == 0
    assert json.loads(capsys.readouterr().out)["dim"] == 4


CONSUMER = Path(__file__).parents[2] / "docs" / "tutorials" / "take-along.md"


def test_the_consumer_of_the_docs_knows_no_torch(tmp_path):
    """The ten lines of the page, in a process of their own, and what they import."""
    block = CONSUMER.read_text().split("```python consumer\n")[1].split("```")[0]
    assert len(block.strip().splitlines()) <= 10
    base("vae-vdm").export(tmp_path / "encoder.onnx")
    pictures = np.random.default_rng(0).integers(0, 2, (9, 4, 4)).astype(np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    after = "\nimport sys\nassert 'torch' not in sys.modules and 'diffrep' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", block + after], cwd=tmp_path, check=True)
    expected = base("vae-vdm").encode(pictures.astype(bool)).mean.numpy()
    np.testing.assert_allclose(np.load(tmp_path / "codes.npy"), expected, rtol=1e-4, atol=1e-4)


def mixed_frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=40), "w": rng.choice([*"xyz"], 40)})
    X["d"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 99, 40), unit="D")
    X.loc[3, "a"] = np.nan
    return X


ROWS = {
    "table": lambda rng: rng.normal(3, 2, (40, 5)),
    "pictures": lambda rng: rng.integers(0, 256, (40, 6, 6, 3)).astype(np.uint8),
    "grey": lambda rng: rng.random((40, 5, 4)),
    "flat": lambda rng: rng.integers(0, 17, (40, 36)).astype(float),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_of_an_estimator_are_prepared_as_it_does(kind):
    """Two routes from rows of X to x: what the estimator stores, and the module that goes along."""
    X = ROWS[kind](np.random.default_rng(0))
    form = form_of(X, (1, 6, 6) if kind == "flat" else None)
    prepare = form.preparation()
    expected = form.examples(X).batch(torch.arange(40)).x
    torch.testing.assert_close(prepare(torch.from_numpy(X.astype(prepare.inputs[0].type))), expected)


def test_an_estimator_of_words_and_dates_is_exported_whole(tmp_path):
    """Numbers, dates as seconds and places of words in, the codes of `transform` out."""
    X = mixed_frame()
    estimator = diffrep.DiffusionEncoder(
        dim=3, budget="64ex", random_state=0, verbose=0, settings={"decoder.width": 4, "encoder.width": 4}
    ).fit(X)
    path = estimator.to_onnx(tmp_path / "encoder.onnx")
    facts = json.loads(ort.InferenceSession(str(path)).get_modelmeta().custom_metadata_map["diffrep"])
    seconds = (X["d"] - pd.Timestamp(0)).dt.total_seconds()
    words = facts["inputs"][1]["words"]["w"]
    inputs = [np.column_stack([X["a"], seconds]), np.array([[words.index(w)] for w in X["w"]])]
    np.testing.assert_allclose(codes(path, *inputs), estimator.transform(X), rtol=1e-4, atol=1e-4)


def test_a_transformer_is_traced_with_any_batch(tmp_path):
    """The other kinds of network are of the other tests."""
    settings = override(Settings(), ["method=ae", "encoder.kind=vit", "encoder.width=8", "code.dim=3"])
    model = diffrep.build(settings, diffrep.Facts((1, 8, 8), None), warn=False)
    exports.write(model, exports.Prepared((1, 8, 8)), tmp_path / "encoder.pt2", {})
