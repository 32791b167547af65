"""Benchmarks: equal budgets, references beside, failures as rows, best first, and nothing made twice."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from diffrep import data as sources
from diffrep.errors import UserError
from diffrep.files import unsealed
from diffrep.probes.linear import STRENGTHS
from diffrep.studies import benchmark as judge
from diffrep.studies.benchmark import RESERVE, Design, benchmark
from runs_at_hand import diffrep, one_sentence
from small import THIN

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    """150 digits in a file, once with labels and once without."""
    folder = tmp_path_factory.mktemp("data")
    x, y = load_digits(return_X_y=True)
    images = x[:150].reshape(-1, 8, 8).astype(np.uint8)
    np.savez(folder / "few.npz", x=images, y=y[:150])
    np.savez(folder / "bare.npz", x=images)
    return str(folder / "few.npz")


@pytest.fixture(scope="module")
def done(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark")
    methods = ("ae", "ddpm", "pixels", "pca", "random-encoder")
    design = Design(methods, seeds=2, changes=THIN, levels=1)
    return out, design, benchmark(source, out, design, budget="64ex")


def test_every_method_has_a_row_for_each_seed_best_first(done):
    """A method without a code has a row that says so, at the end; the others have had the same budget."""
    out, _, found = done
    assert found == unsealed(out / "benchmark.json")
    rows = found["runs"]
    assert sorted((row["method"], row["seed"]) for row in rows) == sorted(
        (m, s) for m in ("ae", "ddpm", "pixels", "pca", "random-encoder") for s in (0, 1)
    )
    assert [row["method"] for row in rows[-2:]] == ["ddpm", "ddpm"] and "no code" in rows[-1]["error"]
    scores = [np.mean([rows[i]["probe_linear"], rows[i + 1]["probe_linear"]]) for i in range(0, 8, 2)]
    assert scores == sorted(scores, reverse=True)
    assert {row["examples"] for row in rows if row["method"] == "ae"} == {64}
    assert "ae" in (out / "table.md").read_text()


def test_pixels_are_judged_as_by_hand(done, source):
    """The row of pixels is scikit-learn's logistic regression on the pixels of the same cut."""
    row = next(row for row in done[2]["runs"] if row["run"] == "pixels-seed1")
    splits = sources.load(source, seed=1)
    whole = [part.batch(torch.arange(len(part))) for part in (splits.train, splits.valid, splits.test)]
    parts = [(batch.x.flatten(1).numpy(), batch.label.numpy()) for batch in whole]
    scaler = StandardScaler().fit(parts[0][0])
    (x, y), (xv, yv), (xt, yt) = ((scaler.transform(x), y) for x, y in parts)
    fits = [LogisticRegression(C=c, max_iter=1000).fit(x, y) for c in STRENGTHS]
    best = max(fits, key=lambda fit: fit.score(xv, yv))
    assert row["probe_linear"] == pytest.approx(best.score(xt, yt))


def test_nothing_that_can_be_judged_is_a_mistake(source, tmp_path):
    """A method without a code alone: no table of nothing, but the reason."""
    with pytest.raises(UserError, match="ddpm has no code to judge"):
        benchmark(source, tmp_path, Design(["ddpm"]), budget="64ex")
    assert not list(tmp_path.iterdir())


def test_nothing_is_made_twice(done, source, monkeypatch):
    """Neither runs nor references."""
    out, design, found = done
    monkeypatch.setattr(judge, "references", lambda *_: pytest.fail("made again"))
    assert benchmark(source, out, design, budget="64ex")["runs"] == found["runs"]


def test_references_of_other_settings_are_made_again(done, source):
    """A code of another size stands beside a PCA of that size, whatever was kept."""
    out, design, found = done
    wider = replace(design, changes=(*THIN[:-1], "code.dim=6"), methods=("pca",), seeds=1)
    (row,) = benchmark(source, out, wider, budget="64ex")["runs"]
    assert row["dim"] == 6 and {r["dim"] for r in found["runs"] if r["method"] == "pca"} == {4}


def test_a_total_is_shared_after_a_reserve():
    """6 runs in 10 minutes, of which a share is for evaluation."""
    assert judge.budget_of_each(None, "10m", 6) == f"{int(600 * (1 - RESERVE) / 6)}s"


@pytest.mark.parametrize(
    "words, said",
    [
        ((), "--budget"),
        (("--budget", "64ex", "--total", "9m"), "one of the two"),
        (("--total", "64ex"), "total in time"),
        (("--budget", "64ex", "--methods", "pixel"), "Did you mean 'pixels'"),
        (("--budget", "64ex", "--methods", ","), "names with commas between"),
    ],
)
def test_mistakes_are_one_sentence_and_nothing_is_written(words, said, source, tmp_path, capsys):
    """Before a model is built."""
    assert diffrep("benchmark", "--data", source, "-o", tmp_path / "b", *words) == 2
    assert said in one_sentence(capsys) and not (tmp_path / "b").exists()


def test_data_without_labels_cannot_be_a_benchmark(source, tmp_path):
    """All is judged by probes."""
    with pytest.raises(UserError, match="no labels"):
        benchmark(source.replace("few", "bare"), tmp_path / "b", budget="64ex")
