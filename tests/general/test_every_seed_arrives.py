"""Oracle 3: the same seed gives the same numbers, another gives others, and nothing in a run shares its draws."""

from __future__ import annotations

import inspect
import json
import shutil
import warnings
from collections import Counter
from functools import cache

import pytest
import torch

from diffrep import runs
from diffrep.cli import app
from diffrep.data import Stream, load
from diffrep.denoising.samplers import STEPS, Sampling
from diffrep.evaluation.bound import bound
from diffrep.files import SEAL
from diffrep.measures.distance import sampled
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.runs.records import SAMPLES
from diffrep.runs.run import DataCard
from diffrep.shapes import Draws
from runs_at_hand import content
from runs_at_hand import diffrep as command
from tiny import EVERY, base, same, settings, source, train, weights


@cache
def facts() -> Facts:
    """What a model needs to know of the tiny data."""
    splits = load(str(source()))
    return DataCard.of(splits).facts(splits.train)


def drawn(method: str, seed: int):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return build(settings(method, f"seed={seed}"), facts()).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("method", EVERY)
def test_another_seed_draws_other_weights(method):
    """Of every method the first weights: of one seed the same, of another different."""
    assert same(drawn(method, 0), drawn(method, 0)) == [] and same(drawn(method, 0), drawn(method, 1))


@pytest.mark.slow
def test_the_seed_of_a_run_names_its_cut_order_and_noise():
    """Splits, the order of examples, and the weights that noise alone can have moved."""
    cuts = {seed: runs.splits_of(settings("ae", f"seed={seed}", "data.source=digits")) for seed in (0, 1)}
    for part in ("train", "valid", "test"):
        assert getattr(cuts[0], part).fingerprint != getattr(cuts[1], part).fingerprint
    train_ = base("dsm").data.train
    orders = [torch.cat([Stream(train_, 16, seed).at(16 * k).index for k in range(3)]) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    assert same(weights(base("dsm")), weights(train("dsm"))) == []
    assert same(weights(base("dsm")), weights(train("dsm", "seed=1")))


def test_the_order_of_a_run_is_that_of_its_seed(monkeypatch):
    """The stream that training reads is told the seed of the settings."""
    told: list[int] = []

    class Told(Stream):
        def __init__(self, examples, batch, seed, *rest, **more):
            told.append(seed)
            super().__init__(examples, batch, seed, *rest, **more)

    monkeypatch.setattr(runs.run, "Stream", Told)
    train("ae", "seed=7")
    assert told == [7]


@pytest.fixture
def seeds(monkeypatch) -> list[tuple[int, int, int]]:
    """Every seed that random numbers are drawn from, and the shard of them that is taken."""
    seen: list[tuple[int, int, int]] = []
    real = Draws.of.__func__

    def of(cls, seed, device="cpu", shard=0, shards=1):
        seen.append((seed, shard, shards))
        return real(cls, seed, device, shard, shards)

    monkeypatch.setattr(Draws, "of", classmethod(of))
    return seen


@pytest.mark.slow
def test_no_two_steps_share_their_draws(seeds):
    """Three steps of a run with a critic: each turn of each step has numbers of its own, and so has another seed."""
    train("adversarial")
    first = [*seeds]
    train("adversarial", "seed=1")
    assert len(first) == 6 and max(Counter(seeds).values()) == 1


@pytest.mark.slow
def test_no_two_chunks_share_their_draws(seeds):
    """Batches of an evaluation, and files of a hundred samples: each its own numbers, and another seed others."""
    run = base("vdm")
    for seed in (0, 1):
        bound(run.model, run.data.test, levels=1, batch=5, seed=seed)
    assert len(seeds) >= 10 and max(Counter(seeds).values()) == 1
    x = sampled(run, 200, Sampling("ddim", 2), seed=5)
    y = sampled(run, 100, Sampling("ddim", 2), seed=6)
    assert not torch.equal(x[:100], x[100:]) and not torch.equal(x[:100], y)


@pytest.mark.parametrize("sampler", STEPS)
def test_samples_are_those_of_their_seed(sampler):
    """Of one seed the same, of another different, and no two of one call alike."""
    model = base("dsm").model
    one, again, other = (model.sample(4, Draws.of(seed), sampler, 3) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


SEEDED = {  # command: the method of a run, the words behind the run
    "sample": ("vae-vdm", ("-n", 3, "--steps", 2, "-o", "made.npy")),
    "reconstruct": ("vae-vdm", (source(), "-n", 2, "--steps", 2, "-o", "made.npy")),
    "interpolate": ("vae-vdm", (0, 1, "--points", 2, "--steps", 2, "-o", "made.npy")),
    "probe": ("ae", ("--protocols", "few", "--few", 2, "--draws", 3)),
    "distance": ("dsm", ("-n", 24, "--steps", 2)),
    "readout": ("ddpm", ("--levels", 2)),
}


def test_every_command_with_a_seed_has_a_row():
    called = {one.name or one.callback.__name__.rstrip("_"): one.callback for one in app.registered_commands}
    assert {name for name, made in called.items() if "seed" in inspect.signature(made).parameters} == {*SEEDED, "train"}


def stated(files: dict[str, bytes]) -> dict[str, object]:
    """The content of files without the seed itself, which JSON states and the names of kept samples hold; without .npz,
    which hold a time."""
    facts: dict[str, object] = {}
    for file, made in files.items():
        if file.endswith(".json"):
            facts[file] = {name: value for name, value in json.loads(made).items() if name not in ("seed", SEAL)}
        elif not file.endswith(".npz") and not file.startswith(f"run/{SAMPLES}/"):
            facts[file] = made
    return facts


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDED)
def test_the_seed_of_a_command_arrives(name, tmp_path, monkeypatch):
    """What it writes is the same for the same seed, and something else for another one."""
    method, words = SEEDED[name]
    written = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        shutil.copytree(base(method).directory, folder / "run")
        monkeypatch.chdir(folder)
        before = content(folder)
        assert command(name, "run", *words, "--seed", seed) == 0
        written.append(stated({file: made for file, made in content(folder).items() if made != before.get(file)}))
    assert written[0] and written[0] == written[1] != written[2]
