"""The explorer without a browser: its answers are those of the model, and what it is handed is read or refused."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from diffrep.errors import UserError
from diffrep.pages import explorer as module
from diffrep.pages.explorer import Explorer
from hostile import no_pictures
from runs_at_hand import SMALL, diffrep, run_of


@pytest.fixture(scope="module")
def digits():
    """The explorer of a small run."""
    return Explorer.of(run_of("vae-vdm"))


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Few steps: what is asked is the same."""
    for name, value in {"STEPS": 2, "EXACT_STEPS": 3, "MAPPED": 40, "SEARCHED": 80}.items():
        monkeypatch.setattr(module, name, value)


def test_a_training_example_is_its_own_nearest_neighbour(digits):
    """The angle between a code and itself is zero, so nothing can be nearer."""
    x = digits.splits.train.batch(digits.searched[5:6]).x[0]
    found = digits.inspect(x, count=2)
    assert torch.equal(found.neighbours[0], x) and found.again.shape == (2, 1, 8, 8) and found.exact.shape == x.shape
    assert len(found.names) == len(found.neighbours)


def test_nats_at_a_noise_level_are_those_of_the_loss(digits):
    """By hand: half the squared error without the code minus half of that with it, over the same noise."""
    x, log_snr = digits.example(3), 1.0
    found = digits.at_noise(x, log_snr, seed=4)
    model = digits.diffusion
    with torch.no_grad():
        many = x.expand(module.NOISES, *x.shape)
        eps = torch.randn(many.shape, generator=torch.Generator().manual_seed(4))
        at = model.noise.time(torch.full((len(many),), log_snr))
        alpha, sigma = (s[:, None, None, None] for s in model.noise.scales(at))
        x_t, z = alpha * many + sigma * eps, digits.model.encode(x[None]).mean.expand(len(many), -1)
        errors = [((eps - model.denoiser(x_t, at, code).eps) ** 2).sum((1, 2, 3)) / 2 for code in (None, z)]
    assert found.nats == pytest.approx(float((errors[0] - errors[1]).mean()), rel=1e-4, abs=1e-4)


def test_walks_move_the_code_along_their_direction(digits):
    """A walk of reach zero stays where it is; a direction is one standard deviation of the codes along its line."""
    x, line = digits.example(0), digits.direction("principal direction", "0")
    still = digits.walk(x, line, 0.0, points=3)
    assert torch.allclose(still[0], still[2], atol=1e-5)
    spread = (digits.train_codes @ (line / np.linalg.norm(line))).std()
    assert np.linalg.norm(line) == pytest.approx(spread, rel=1e-4)
    assert len(digits.directions("number")) == 32 and digits.directions("class") == [str(k) for k in range(10)]
    with pytest.raises(UserError):
        digits.direction("class", "none such")


def test_the_direction_of_a_class_tells_it_from_others(digits):
    """Codes of the class lie further along its direction than those of all others, on average."""
    labels = digits.splits.train.labels[digits.searched].numpy()
    for k in (0, 7):
        along = digits.train_codes @ digits.direction("class", str(k))
        assert along[labels == k].mean() > along[labels != k].mean()


def test_a_dot_of_the_map_is_the_example_that_it_shows(digits):
    """Pointing at the place of a dot names that dot, and the map is a picture of the said size."""
    index, places = digits.mapped
    for i in (0, 17):
        assert digits.pointed_at(*(2 * places[i])) == int(index[i])
    assert digits.map(int(index[0])).size == (2 * module.SIDE[0], 2 * module.SIDE[1])


def test_samples_have_a_seed_and_two_people_do_not_disturb_each_other(digits):
    """The same seed makes the same examples, whatever others ask at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    alone = {seed: digits.samples(seed, 2) for seed in (1, 2)}
    with ThreadPoolExecutor(2) as people:
        for seed, found in zip((1, 2, 1, 2), people.map(lambda s: digits.samples(s, 2), (1, 2, 1, 2)), strict=True):
            assert torch.equal(found, alone[seed])
    assert not torch.equal(alone[1], alone[2])


def test_a_picture_of_any_size_is_brought_to_the_data(digits, tmp_path):
    """A white picture is the brightest level everywhere, in the levels of the data; colour becomes grey."""
    Image.new("RGB", (90, 40), "white").save(tmp_path / "white.png")
    assert torch.allclose(digits.uploaded(tmp_path / "white.png"), torch.full((1, 8, 8), 2 * 16.5 / 17 - 1))
    ends = [digits.test.batch(torch.arange(50)).x.max(), digits.uploaded(tmp_path / "white.png").max()]
    assert float(ends[0]) == pytest.approx(float(ends[1]))


@pytest.mark.parametrize("name", ["empty", "zip", "svg", "huge", "cut off", "many bytes", "text"])
def test_what_is_no_picture_is_refused_in_one_sentence(name, digits, tmp_path):
    """A mistake, never a traceback and never another file: the path of a visitor's file is not told either."""
    path = tmp_path / "secret name.png"
    path.write_bytes(no_pictures()[name])
    with pytest.raises(UserError) as said:
        digits.uploaded(path)
    assert "secret" not in str(said.value) and "skip" not in str(said.value) and "\n" not in str(said.value)


def test_a_row_is_standardised_as_the_training_was(tmp_path):
    """A row typed in the units of the table is the row that the run was trained on."""
    numbers = np.random.default_rng(0).normal(5, 3, (60, 4))
    np.save(tmp_path / "table.npy", numbers)
    assert diffrep("train", "--data", tmp_path / "table.npy", "--method", "drl", "--out", tmp_path / "r", *SMALL) == 0
    table = Explorer.of(tmp_path / "r")
    x = table.example(0)
    mean, std = table.run.scaling()
    row = x * std + mean
    typed = table.typed(", ".join(f"{v:.6f}" for v in row.tolist()))
    assert torch.allclose(typed, x, atol=1e-4)
    for wrong in ("1, 2, 3", "1, 2, 3, nan", "1, 2, 3, x", ""):
        with pytest.raises(UserError):
            table.typed(wrong)


@pytest.mark.parametrize("method", ["vdm", "simclr", "ae", "tdrl"])
def test_each_method_answers_what_it_can(method, tmp_path):
    """Without a code, a decoder or noise there is still something to look at."""
    found = Explorer.of(shutil.copytree(run_of(method), tmp_path / "run"))
    x = found.example(0)
    inspected = found.inspect(x, count=2)
    assert (inspected.code is None) == (method == "vdm") and (inspected.again is None) == (method in ("vdm", "simclr"))
    if found.denoises:
        assert found.at_noise(x, 0.0).x_t.shape == x.shape
    if found.model.has_code and found.decodes:
        assert len(found.between(x, found.example(1), 3)) == 5
        assert len(found.walk(x, found.direction("number", "0"), 1.0, 3)) == 3


def test_another_host_wants_a_password():
    """What others can reach is not open to all."""
    pytest.importorskip("gradio")
    from diffrep.pages.app import check

    with pytest.raises(UserError, match="password"):
        check("0.0.0.0", None)
    check("0.0.0.0", "secret")
    check("127.0.0.1", None)
