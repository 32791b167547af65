"""`diffrep disentangle`: which factors of the data are used, and that the numbers are those of the arrays."""

import shutil

import numpy as np
import pytest

from diffrep import api, data, runs
from diffrep.errors import UserError
from diffrep.files import unsealed
from diffrep.measures.disentangle import disentangle, factors_of
from diffrep.measures.evaluate import codes
from diffrep.probes import disentanglement as scores
from diffrep.probes import hypersphere
from runs_at_hand import diffrep, one_sentence, run_of
from small import NARROW

SMALL = [*NARROW, "train.batch=32", "code.dim=4"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """200 small tables whose columns say: a class, a word and a quantity, each with holes, a name, a constant."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 3
    place = rng.normal(size=200)
    place[7] = np.nan
    path = tmp_path_factory.mktemp("data") / "kept.npz"
    np.savez(
        path,
        x=rng.normal(size=(200, 5)).astype(np.float32) + y[:, None],
        y=np.where(np.arange(200) % 10 == 3, -1, y),
        colour=np.where(np.arange(200) % 20 == 5, "", np.array(["red", "blue"])[rng.integers(0, 2, 200)]),
        place=place,
        called=np.array([f"a{i}" for i in range(200)]),
        still=np.ones(200),
    )
    return path


def test_factors_are_taken_for_what_they_are(source):
    """Words are classes, a column of many numbers a quantity, -1, NaN and "" unknown; a name for each example and a
    column that never changes tell nothing, and it is said why."""
    every = data.whole(source)
    kept, left_out = factors_of(every)
    assert {name: discrete for name, (_, discrete) in kept.items()} == {"label": True, "colour": True, "place": False}
    assert {name: np.isnan(kept[name][0]).sum() for name in kept} == {"label": 20, "colour": 10, "place": 1}
    assert set(left_out) == {"called", "still"} and "name" in left_out["called"]


def test_the_numbers_are_those_of_the_arrays(source, tmp_path):
    """Codes of the test split beside the factors, row by row, without the rows in which one is unknown; and the file
    says what was returned."""
    run = api.train(str(source), tmp_path / "run", "ae", "64ex", SMALL)
    facts = disentangle(run)
    assert unsealed(tmp_path / "run" / "disentangle.json") == facts
    test = run.splits().test
    labels, place = test.labels.numpy(), test.factors["place"]
    whole = (labels >= 0) & np.isfinite(place) & (test.factors["colour"] != "")
    colour = (test.factors["colour"] == "red").astype(float)
    values = np.stack([labels, colour, place], 1)[whole]
    z = codes(run.model, test)[whole]
    assert facts["examples"] == whole.sum() < len(test) and facts["factors"] == ["label", "colour", "place"]
    for name in ("mig", "sap", "tad", "dci"):
        assert facts[name] == getattr(scores, name)(z, values, [True, True, False])
    assert facts["uniformity"] == hypersphere.uniformity(z)
    rows = [np.flatnonzero(values[:, 0] == k) for k in range(3)]
    pairs = [(m[i], m[(i + 1) % len(m)]) for m in rows for i in range(len(m))]
    first, second = (z[[pair[end] for pair in pairs]] for end in (0, 1))
    assert facts["alignment"] == pytest.approx(hypersphere.alignment(first, second))


def test_the_command_names_factors_and_protocols(tmp_path, capsys):
    """A table for people; with the label alone it says that nothing could be mixed."""
    run = shutil.copytree(run_of("vae"), tmp_path / "run")
    capsys.readouterr()
    assert diffrep("disentangle", run, "--most", 60) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "dci-1" in said and "mig-1" in said and "one factor alone" in said and "359 test examples" in said


def test_what_cannot_be_held_against_factors_is_one_sentence(tmp_path, capsys):
    """No code; no factors."""
    assert diffrep("disentangle", run_of("vdm")) == 2
    assert "no code" in one_sentence(capsys)
    plain = api.train(np.random.default_rng(0).normal(size=(60, 3)), tmp_path / "run", "ae", "64ex", SMALL)
    with pytest.raises(UserError, match="names no factor"):
        disentangle(plain)
    assert not (runs.load(run_of("vdm")).directory / "disentangle.json").exists()
