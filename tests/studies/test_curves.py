"""A benchmark under several budgets: each is a benchmark of its own, and the picture has a point for each."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from diffrep.runs.summary import Numbers
from diffrep.studies import figures
from diffrep.studies.row import Row
from runs_at_hand import diffrep, one_sentence

pytestmark = pytest.mark.slow

SMALL = [word for change in ("train.batch=32", "encoder.width=4", "code.dim=4") for word in ("--set", change)]


def row(name: str, seed: int, accuracy: float, seconds: float | None) -> Row:
    numbers = Numbers(probe_linear=accuracy, seconds=seconds)
    return Row(run=f"{name}-seed{seed}", name=name, method=name, code=True, seed=seed, axes={}, numbers=numbers)


def test_a_point_is_the_mean_over_seeds_of_one_budget(monkeypatch):
    """Two seeds of 0.4 and 0.6 after 10 and 30 seconds stand at (20, 0.5), error 0.1; untrained features are a line."""
    drawn = []
    monkeypatch.setattr(figures, "_png", lambda figure, axes: drawn.append(figure) or b"")
    short = [row("a", 0, 0.4, 10.0), row("a", 1, 0.6, 30.0), row("pixels", 0, 0.7, None)]
    long = [row("a", 0, 0.8, 100.0), row("a", 1, 0.8, 100.0), row("pixels", 0, 0.7, None)]
    figures.curves([long, short])
    (axes,) = drawn[0].axes
    (container,) = axes.containers
    np.testing.assert_allclose(container[0].get_xydata(), [[20, 0.5], [100, 0.8]])
    bars = container[2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1].tolist() for bar in bars], [[0.3, 0.7], [0.8, 0.8]])
    (line,) = [line for line in axes.lines if line.get_label() == "pixels"]
    assert set(line.get_ydata()) == {0.7}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["20", "100"] and not len(
        axes.get_xticks(minor=True)
    )


def test_one_seed_has_the_error_of_its_test_examples(monkeypatch):
    """There is no error over seeds, and an error of nothing would look exact."""
    drawn = []
    monkeypatch.setattr(figures, "_png", lambda figure, axes: drawn.append(figure) or b"")
    one = row("a", 0, 0.4, 10.0)
    figures.curves([[replace(one, numbers=replace(one.numbers, probe_linear_se=0.05))]])
    (bar,) = drawn[0].axes[0].containers[0][2][0].get_segments()
    np.testing.assert_allclose(bar[:, 1], [0.3, 0.5])


def test_without_a_probe_there_is_no_picture():
    """A picture of nothing would be empty axes."""
    assert figures.curves([[Row(run="a", name="a", method="a", code=True, seed=0, axes={})]]) is None


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    """120 digits in a file."""
    x, y = load_digits(return_X_y=True)
    path = tmp_path_factory.mktemp("data") / "few.npz"
    np.savez(path, x=x[:120].reshape(-1, 8, 8).astype(np.uint8), y=y[:120])
    return str(path)


def test_the_command_makes_a_benchmark_for_each_budget(source, tmp_path, capsys):
    """Each has the examples that it names, in a folder that bears its name."""
    words = ["benchmark", "--data", source, "--methods", "ae,pixels", "--seeds", 1, *SMALL, "-o", tmp_path]
    assert diffrep(*words, "--budget", "64ex,96ex") == 0
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    for budget, examples in (("64ex", 64), ("96ex", 96)):
        rows = json.loads((tmp_path / budget / "benchmark.json").read_text())["runs"]
        assert {r["examples"] for r in rows if r["method"] == "ae"} == {examples}
    capsys.readouterr()
    assert diffrep(*words, "--budget", "64ex,64ex") == 2
    assert "budgets that differ" in one_sentence(capsys)
