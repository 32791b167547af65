"""A covariate that the decoder alone gets: the encoder never sees it, the bound knows it, and it is asked for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from diffrep import UserError, data
from diffrep.denoising.denoiser import Denoiser
from diffrep.denoising.noise import VP
from diffrep.denoising.parameterisations import Eps
from diffrep.evaluation.bound import bound
from diffrep.nets.conditioning import Conditioning
from diffrep.nets.decoders import MLPDecoder
from diffrep.pages import explorer
from diffrep.runs.restored import table as table_of
from diffrep.shapes import Batch, Draws
from runs_at_hand import diffrep as command
from runs_at_hand import one_sentence
from tiny import train

SIGNS = np.sign(np.random.default_rng(7).normal(size=8))


def table(path: Path, n: int = 240, batches: str = "ab", seed: int = 0) -> Path:
    """Eight numbers of unit variance, each moved by 3, up or down, in the second batch."""
    rng = np.random.default_rng(seed)
    batch = rng.integers(0, len(batches), n)
    x = rng.normal(size=(n, 8)) + 3 * SIGNS * batch[:, None]
    rows = [",".join([*(f"{v:.4f}" for v in row), batches[k]]) for row, k in zip(x, batch, strict=True)]
    path.write_text("\n".join([",".join([*(f"g{i}" for i in range(8)), "batch"]), *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return table(tmp_path_factory.mktemp("covariate") / "cells.csv")


@pytest.fixture(scope="module")
def run(source):
    return train("vae-vdm", "data.covariate=batch", data=source)


def test_it_is_a_factor_and_neither_a_feature_nor_the_label(source):
    """One column of two words would be taken for the label otherwise; shares and places are those of the column."""
    whole = data.whole(source, covariate="batch")
    written = [line.rsplit(",")[-1] for line in source.read_text().splitlines()[1:]]
    assert whole.shape == (8,) and whole.labels is None and whole.factors["batch"].tolist() == written
    some = whole.batch(torch.tensor([5, 0, 9]))
    assert some.covariate.tolist() == [[float(written[i] == v) for v in "ab"] for i in (5, 0, 9)]
    assert whole.reading.covariates == {v: written.count(v) for v in "ab"}
    assert data.load(source).train.reading.label == "batch"


def test_its_values_are_those_of_training(tmp_path):
    """A batch that only the test split has is no input of the decoder; gaps are refused; 1 and 1.0 are one value."""
    rng = np.random.default_rng(0)

    def splits(values):
        rows = [
            f"{rng.normal():.3f},{rng.normal():.3f},{v},{'test' if k >= 30 else 'train'}" for k, v in enumerate(values)
        ]
        (tmp_path / "t.csv").write_text("\n".join(["a,b,batch,split", *rows]) + "\n")
        return data.load(tmp_path / "t.csv", covariate="batch", columns=("a", "b"), split_column="split", valid=0.1)

    read = splits(["1", "2"] * 15 + ["2.0", "3"] * 3)
    assert list(read.train.reading.covariates) == ["1", "2"]
    assert read.test.covariate.tolist() == [1, -1] * 3
    assert any("3, which training did not have" in note for note in read.train.reading.notes)
    with pytest.raises(UserError, match="no value in 1 of 36 rows"):
        splits(["1", "2"] * 15 + ["2", ""] + ["1", "2"] * 2)


def test_the_encoder_never_sees_it(run):
    """d code / d covariate is nil, d prediction / d covariate is not; the code of a cell is the same in any batch."""
    some = run.splits().train.batch(torch.arange(16), Draws.of(0))
    covariate = some.covariate.clone().requires_grad_()
    step = run.model.noised(Batch(some.x, some.index, draws=Draws.of(0), covariate=covariate))
    ask = {"allow_unused": True, "retain_graph": True}
    assert torch.autograd.grad(step.code.mean.sum() + step.z.sum(), covariate, **ask)[0] is None
    assert torch.autograd.grad(step.prediction.eps.square().sum(), covariate, **ask)[0].abs().sum() > 0


def test_a_cell_has_the_same_code_in_any_batch(run, source, tmp_path):
    text = source.read_text()
    other = tmp_path / "other.csv"
    other.write_text(text.replace(",a\n", ",c\n").replace(",b\n", ",a\n"))
    with pytest.warns(UserWarning, match="holds c, which training did not have: these examples can be encoded"):
        assert torch.equal(run.encode(str(source)).mean, run.encode(str(other)).mean)
    moved = tmp_path / "moved.csv"
    moved.write_text(text.replace(",a\n", ",c\n").replace(",b\n", ",a\n").replace(",c\n", ",b\n"))
    one, two = (run.reconstruct(str(path), steps=4) for path in (source, moved))
    assert not torch.allclose(one, two)


def test_the_explorer_gives_an_example_its_own_covariate(run, source, monkeypatch):
    """Every answer is that of the model with it; a visitor's example gets the value of most examples."""
    monkeypatch.setattr(explorer, "STEPS", 2)
    monkeypatch.setattr(explorer, "EXACT_STEPS", 2)
    here, test = explorer.Explorer(run, run.splits()), run.splits().test
    of_test = test.batch(torch.arange(len(test))).covariate
    a, b = (int((of_test[:, k] == 1).nonzero()[0]) for k in (0, 1))
    assert here.covariate(a).tolist() == [[1.0, 0.0]] and here.covariate(b).tolist() == [[0.0, 1.0]]
    written = [line.rsplit(",")[-1] for line in source.read_text().splitlines()[1:]]
    assert here.covariate().tolist() == [[float(written.count(v) > len(written) / 2) for v in "ab"]]
    x, line = here.example(a), np.ones(run.code_dim, np.float32)
    for made in (
        lambda c: here.inspect(x, covariate=c).again,
        lambda c: here.inspect(x, covariate=c).exact,
        lambda c: here.at_noise(x, 0.0, covariate=c).given,
        lambda c: here.between(x, x, 2, covariate=c)[1:-1],
        lambda c: here.walk(x, line, 1.0, covariate=c),
    ):
        assert made(here.covariate(a)).isfinite().all()
        assert not torch.equal(made(here.covariate(a)), made(here.covariate(b)))


def test_its_column_comes_back(run, source, tmp_path):
    """Samples have the value that each was drawn with, reconstructions that of their row, in the source's order of
    columns."""
    sampled, again = tmp_path / "new.csv", tmp_path / "again.csv"
    assert command("sample", run.directory, "-n", 30, "-o", sampled, "--steps", 2, "--seed", 3) == 0
    assert command("reconstruct", run.directory, source, "-n", 20, "-o", again, "--steps", 2) == 0
    written = pd.read_csv(source)
    rows = np.linspace(0, len(written) - 1, 20).astype(int)
    assert pd.read_csv(again)["batch"].tolist() == written["batch"].iloc[rows].tolist()
    drawn = run.model.covariates(30, 3).argmax(1)
    assert pd.read_csv(sampled)["batch"].tolist() == ["ab"[k] for k in drawn] and set(drawn.tolist()) == {0, 1}
    assert list(pd.read_csv(sampled)) == list(pd.read_csv(again)) == list(written)
    assert torch.equal(run.model.covariates(7, 3).argmax(1), drawn[:7])  # of example i, whatever their number


@pytest.mark.parametrize("values", [(3, 7), (0.5, 1.5), (True, False)])
def test_its_column_has_the_type_that_it_had(values, tmp_path):
    """Numbers stay numbers, though the values of a covariate are kept as words."""
    rng = np.random.default_rng(0)
    written = pd.DataFrame(rng.normal(size=(40, 3)), columns=["a", "b", "c"]).assign(batch=[*values] * 20)
    written.to_csv(tmp_path / "t.csv", index=False)
    reading = data.whole(tmp_path / "t.csv", covariate="batch").reading
    place = [[*reading.covariates].index(str(v)) for v in values] * 20
    assert table_of(reading, np.zeros((40, 3)), place).to_pandas()["batch"].tolist() == [*values] * 20


def test_the_line_of_train_names_it(run, source):
    assert ", covariate batch (2 values)" in data.load(source, covariate="batch").train.reading.line()


def test_a_read_out_refuses_it(run, capsys):
    """It has no batch to give, so the advice is not to give one."""
    capsys.readouterr()
    assert command("readout", run.directory) == 2
    assert "trained with data.covariate, and a read-out gives" in one_sentence(capsys)


@pytest.mark.parametrize("lack", ["column", "value"])
def test_a_decoder_without_its_covariate_says_so(run, source, lack, tmp_path, capsys):
    """Encoding needs none; reconstructing does, and names the setting."""
    path = tmp_path / "new.csv"
    text = source.read_text()
    cut = "\n".join(line.rsplit(",", 1)[0] for line in text.splitlines())
    path.write_text(cut if lack == "column" else text.replace(",b\n", ",z\n"))
    assert command("encode", run.directory, path, "-o", tmp_path / "codes.parquet") == 0
    capsys.readouterr()
    assert command("reconstruct", run.directory, path, "-o", tmp_path / "again.csv") == 2
    assert "trained with data.covariate, and these examples have none of its values" in capsys.readouterr().err
    with pytest.raises(UserError, match="have none of its values"):
        bound(run.model, data.whole(path, reading=run.card.how()), levels=1)


@pytest.mark.parametrize("method", ["vdm", "drl", "pdae", "ssm"])
def test_every_decoder_that_removes_noise_takes_it(method, source, tmp_path):
    """They train, sample, and take it into account; the rows of a sample are in the columns of the table."""
    run = train(method, "data.covariate=batch", data=source)
    some = run.splits().test.batch(torch.arange(4), Draws.of(0))
    nats = run.model.denoising_by_level(some, 2)
    flipped = Batch(some.x, some.index, draws=Draws.of(0), covariate=some.covariate.flip(1))
    assert not torch.allclose(nats, run.model.denoising_by_level(flipped, 2))
    assert command("sample", run.directory, "-n", 3, "-o", tmp_path / "new.csv") == 0
    assert (tmp_path / "new.csv").read_text().count("\n") == 4


def test_a_method_that_cannot_take_it_and_a_column_of_no_groups_are_refused(source, tmp_path, capsys):
    how = ("--data", source, "--budget", "16ex", "--out", tmp_path / "no")
    assert command("train", *how, "--method", "ae", "--set", "data.covariate=batch") == 2
    assert "ae has no decoder that takes data.covariate" in one_sentence(capsys)
    assert command("train", *how, "--method", "vdm", "--set", "data.covariate=g0") == 2
    assert "values in 168 rows of training, expected two groups or more" in one_sentence(capsys)
    assert command("train", *how, "--method", "vdm", "--set", "data.covariate=bach") == 2
    assert "'batch'" in one_sentence(capsys)


def denoiser(shares: tuple[float, ...]) -> Denoiser:
    torch.manual_seed(0)
    network = MLPDecoder((3,), 8, 1, conditioning=Conditioning(covariates=len(shares)))
    return Denoiser(network, VP(), Eps(), covariates=shares)


def test_a_batch_of_repeats_gets_the_covariate_of_each_example():
    """x, x, y, y with one covariate for x and one for y: as each of them alone."""
    net = denoiser((0.25, 0.75))
    x, t = torch.randn(4, 3), torch.full((4,), 0.5)
    one, two = torch.eye(2)
    together = net.given(torch.eye(2))(x, t).eps
    torch.testing.assert_close(together[:2], net.given(one[None])(x[:2], t[:2]).eps)
    torch.testing.assert_close(together[2:], net.given(two[None])(x[2:], t[2:]).eps)
    assert net.covariate is None


def test_covariates_are_drawn_as_often_as_the_data_has_them():
    drawn = denoiser((0.25, 0.0, 0.75)).drawn(10_000, Draws.of(0))
    assert (drawn.sum(1) == 1).all()
    np.testing.assert_allclose(drawn.mean(0), [0.25, 0.0, 0.75], atol=0.015)  # three standard errors
    assert denoiser(()).drawn(5, Draws.of(0)) is None


@pytest.mark.long
def test_the_bound_is_better_where_a_batch_moves_every_number(tmp_path):
    """Given the batch, x is N(0, I) in eight numbers; without it a mixture of two, ln 2 nats more in ideal models.

    A model of two modes learns more slowly than one of a single mode, so the gain of short training is larger.
    """
    source, ends = table(tmp_path / "many.csv", 2000), {}
    for name, more in {"with": ("data.covariate=batch",), "without": ("data.drop=batch",)}.items():
        seldom = ("train.batch=64", "train.checkpoint_every=500", "train.log_every=500")
        how = ("train.budget=12000ex", "decoder.width=8", "train.schedule=cosine", *seldom)
        run = train("vdm", *how, *more, data=source)
        ends[name] = bound(run.model, run.splits().test, levels=16).total.double()
    gain = ends["without"] - ends["with"]
    error = gain.std() / len(gain) ** 0.5
    assert gain.mean() > 4 * error, (gain.mean(), error)
