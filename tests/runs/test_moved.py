"""A run knows its data by its examples: however the path is written, wherever it lies now, whatever was added since."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runs_at_hand import SMALL, diffrep, one_sentence

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
MEASURES = ("evaluate", "probe", "distance", "readout", "semi", "report")
QUICK = {
    "evaluate": ("--levels", 1), "distance": ("-n", 20), "readout": ("--levels", 1), "probe": ("--protocols", "knn"),
    "semi": ("--labels-per-class", 2, "--seeds", 1, "--steps", 1),
}  # fmt: skip


def photos(folder: Path, count: int = 150) -> Path:
    for i in range(count):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / "ab"[i % 2] / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with photos and a run on them, both by relative paths."""
    here = tmp_path_factory.mktemp("here")
    photos(here / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert diffrep("train", "--data", "photos", "--method", "vdrl", "--out", "run", *SMALL) == 0
    return here


@pytest.fixture
def here(trained, tmp_path, monkeypatch) -> Path:
    """A copy of both, in which the run knows the copied photos as its own."""
    shutil.copytree(trained, tmp_path / "here")
    card = tmp_path / "here" / "run" / "data.json"
    facts = json.loads(card.read_text().replace(str(trained), str(tmp_path / "here")))
    del facts["checksum"]  # changed on purpose
    card.write_text(json.dumps(facts))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_path_is_the_folder_that_it_names(here, capsys):
    """photos, photos/, ./photos and the absolute path go on with the same run; another folder is refused."""
    for step, path in enumerate(("photos", "photos/", "./photos", here / "photos")):
        budget = f"{96 + 32 * step}ex"
        assert diffrep("train", "--data", path, "--method", "vdrl", "--out", "run", *SMALL, "--budget", budget) == 0
        assert json.loads((here / "run" / "metrics.jsonl").read_text().splitlines()[-1])["examples"] == 96 + 32 * step
    photos(here / "other")
    capsys.readouterr()
    assert diffrep("train", "--data", "other", "--method", "vdrl", "--out", "run", *SMALL, "--budget", "999ex") == 2
    assert "other data" in one_sentence(capsys)


@pytest.mark.parametrize("command", MEASURES)
def test_data_that_has_moved_is_named(command, here, capsys):
    """Every command that measures takes --data; without it one sentence; other data of the same shape are refused."""
    shutil.move(here / "photos", here.parent / "elsewhere")
    capsys.readouterr()
    words = (command, "run", *QUICK.get(command, ()))
    if command != "report":  # a report says why it has no pictures
        assert diffrep(*words) == 2 and "photos, on which the run was trained" in (said := one_sentence(capsys))
        assert "--data" in said
        photos(here / "other")
        assert diffrep(*words, "--data", "other") == 2 and "other data" in one_sentence(capsys)
    assert diffrep(*words, "--data", here.parent / "elsewhere") == 0
    if command == "report":
        assert "There are no pictures" not in (here / "run" / "report.html").read_text()


def test_a_run_that_has_moved_finds_its_data(here, monkeypatch):
    """The run was made by a relative path; from another folder it looks where the data lay."""
    (here.parent / "away").mkdir()
    shutil.move(here / "run", here.parent / "away" / "renamed")
    monkeypatch.chdir(here.parent / "away")
    assert diffrep("probe", "renamed", "--protocols", "knn") == 0


def test_a_picture_added_later_ends_nothing_and_is_said(here, capsys):
    """Measured and continued on the examples of then; how many came since stands on stderr, one line."""
    Image.fromarray(RNG.integers(0, 256, (8, 8), dtype=np.uint8)).save(here / "photos" / "a" / "aa.png")
    before = json.loads((here / "run" / "data.json").read_text())
    with pytest.warns(UserWarning, match="photos has 1 example more"):
        assert diffrep("probe", "run", "--protocols", "knn") == 0
    assert diffrep("train", "--data", "photos", "--method", "vdrl", "--out", "run", *SMALL, "--budget", "96ex") == 0
    after = json.loads((here / "run" / "data.json").read_text())
    assert after["fingerprints"] == before["fingerprints"] and after["examples"] == before["examples"]
    (here / "photos" / "a" / "0.png").unlink()
    capsys.readouterr()
    assert diffrep("probe", "run", "--protocols", "knn", "--data", "photos") == 2
    assert "other data" in one_sentence(capsys)
