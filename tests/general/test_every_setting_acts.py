"""Oracle 2: each setting changes what it names, for a method that uses it; one that is of no use is warned of."""

from __future__ import annotations

import json
import warnings
from functools import cache

import pytest
import torch

from diffrep import config
from diffrep.data import Examples, load
from diffrep.errors import UserError
from diffrep.methods.catalog import build
from diffrep.methods.parts import Facts
from diffrep.runs.run import DataCard
from diffrep.shapes import Batch, Draws
from locked import hold, of_result, seen_each, seen_parts, short, whole
from tiny import base, same, settings, source, train, weights

# leaf -> method that uses it, what it needs beside, and the value that is tried
ROWS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "decoder.kind": ("dsm", (), "mlp"),
    "decoder.width": ("dsm", (), "8"),
    "decoder.multipliers": ("dsm", (), "[1,2]"),
    "decoder.patch": ("dsm", (), "2"),
    "decoder.blocks": ("dsm", (), "2"),
    "decoder.condition_width": ("dsm", (), "8"),
    "decoder.attention": ("dsm", (), "[true,false]"),
    "decoder.fourier": ("dsm", (), "[1]"),
    "decoder.dropout": ("dsm", (), "0.5"),
    "decoder.observe_code": ("drl", (), "false"),
    "decoder.by_place": ("dsm", (), "false"),
    "decoder.mixture": ("dsm", (), "false"),
    "decoder.draw_code": ("drl", (), "false"),
    "decoder.code_until": ("drl", (), "-1.0"),
    "decoder.start": ("vdm", (), "gaussian"),
    "encoder.kind": ("ae", (), "mlp"),
    "encoder.width": ("ae", (), "8"),
    "encoder.depth": ("ae", ("encoder.kind=mlp",), "2"),
    "encoder.widen": ("ae", ("encoder.kind=wideresnet", "encoder.depth=10"), "1"),
    "encoder.patch": ("ae", ("encoder.kind=vit", "encoder.depth=1"), "2"),
    "encoder.dropout": ("ae", (), "0.5"),
    "code.kind": ("vdrl", ("code.classes=2",), "categorical"),
    "code.dim": ("ae", (), "8"),
    "code.classes": ("vdrl", ("code.kind=categorical", "code.classes=2"), "4"),
    "code.detail": ("drl", (), "high-noise"),
    "code.drop": ("drl", (), "0.5"),
    "code.rate": ("vdrl", (), "3.0"),
    "code.beta": ("vae", (), "7.0"),
    "code.l1": ("drl", (), "1.0"),
    "code.mmd": ("drl", (), "1.0"),
    "code.free_bits": ("vae", (), "1000.0"),
    "code.warmup": ("vae", (), "10"),
    "code.cycle": ("vae", (), "10"),
    "code.extra_steps": ("vdrl", ("code.rate=1000.0",), "2"),
    "code.extra_until": ("vdrl", ("code.extra_steps=2",), "5"),
    "prior.kind": ("vdrl", (), "mixture"),
    "prior.components": ("vdrl", ("prior.kind=mixture",), "3"),
    "anneal.steps": ("dsm", ("anneal.factor=2.0", "anneal.steps=10"), "20"),
    "anneal.factor": ("dsm", ("anneal.factor=3.0", "anneal.steps=10"), "2.0"),
    "anneal.detail": ("dsm", ("anneal.detail=low-noise", "anneal.steps=10"), "high-noise"),
    "views.crop": ("simclr", (), "0.9"),
    "views.flip": ("simclr", (), "true"),
    "views.jitter": ("simclr", (), "0.5"),
    "views.erase": ("simclr", (), "0.9"),
    "views.drop": ("simclr", (), "0.7"),
    "views.noise": ("simclr", (), "0.5"),
    "views.contrast": ("soda-simclr", (), "3.0"),
    "views.denoise_every": ("soda-simclr", (), "1"),
    "views.mask": ("mae", (), "0.3"),
    "noise.kind": ("dsm", (), "cosine"),
    "noise.gamma_0": ("vdm", (), "-6.0"),
    "noise.sigma_0": ("vdm", (), "0.5"),
    "noise.gamma_1": ("vdm", (), "3.0"),
    "noise.steps": ("vdm", (), "10"),
    "noise.sigma_min": ("dsm", (), "0.1"),
    "noise.sigma_max": ("dsm", (), "20.0"),
    "noise.beta_min": ("ddpm", (), "0.5"),
    "noise.beta_max": ("ddpm", (), "10.0"),
    "detail": ("dsm", (), "high-noise"),
    "predicts": ("dsm", (), "x"),
}
CELLS = {"views.thin"}  # of which only counts know: tests/data/test_cells.py
TABLES = {"views.drop"}  # of which only vectors know
TRAINED = {  # changes the weights after three steps
    "lr": "1e-3", "optimizer": "adamw", "beta1": "0.5", "beta2": "0.5", "weight_decay": "0.5", "warmup": "0.9",
    "schedule": "cosine", "clip": "1e-3", "ema": "0.1", "batch": "8", "precision": "bf16",
}  # fmt: skip
TOLD = {  # reaches the engine, which other tests hold to its meaning
    "budget", "accumulate", "compile", "channels_last", "workers", "device", "log_every", "checkpoint_every",
    "trackers", "patience", "shard",
}  # fmt: skip


def leaves(section: str) -> set[str]:
    return {name.removeprefix(f"{section}.") for name in config.names() if name.startswith(f"{section}.")}


def test_every_leaf_has_a_row():
    """A setting that is added must say here what it changes; one that is gone leaves no row."""
    elsewhere = {"method", "seed", *CELLS} | {f"train.{n}" for n in (*TRAINED, *TOLD)}
    data = {name for name in config.names() if name.startswith("data.")}  # test_every_setting_of_data_acts.py
    assert set(ROWS) | elsewhere == set(config.names()) - data
    whole("settings", ROWS)
    whole("trained", TRAINED)


@cache
def at_hand(table: bool) -> tuple[Examples, Facts]:
    """The tiny training examples, and what a model needs to know of them."""
    splits = load(str(source(table=table)))
    return splits.train, DataCard.of(splits).facts(splits.train)


def made(method: str, changes: tuple[str, ...], table: bool = False):
    """(model, warnings) of settings, for the tiny data."""
    examples, facts = at_hand(table)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = build(settings(method, *changes, data=source(table=table)), facts)
    return model, examples, " ".join(str(w.message) for w in told)


def shown(method: str, changes: tuple[str, ...], table: bool = False, steps: int = 2) -> tuple[list, str]:
    """All that a setting of a model can change: weights, turns and prices of its steps, and what was warned."""
    model, examples, told = made(method, changes, table)
    found: list = [{name: tuple(value.shape) for name, value in model.state_dict().items()}, model.target]
    found += [value.sum().item() for value in model.state_dict().values()]
    model.train()
    for step in range(steps):
        batch = examples.batch(torch.arange(16))
        torch.manual_seed(step)
        terms = model.loss(Batch(batch.x, batch.index, batch.label, Draws.of(step)))
        found += [(name, value.sum().item()) for name, value in terms.items()] + model.order(step)
        total = torch.stack([*terms.values()]).sum()
        if total.requires_grad:
            model.zero_grad()
            total.backward()
            found += [p.grad.abs().sum().item() for p in model.parameters() if p.grad is not None]
        model.advance()
    return found + [model.order(step) for step in range(steps, 8)], told


def of_shown(said: list) -> dict:
    """What is kept of it (`tests/locked.py`)."""
    shapes, target, *rest = said
    turns, terms = [one for one in rest if isinstance(one, str | list)], [one for one in rest if isinstance(one, tuple)]
    numbers = seen_each([one for one in rest if isinstance(one, float)])
    return {
        "shapes": short(str(shapes)),
        "target": str(target),
        "turns": str(turns),
        "terms": terms,
        "weights": numbers,
    }


@pytest.mark.slow
@pytest.mark.parametrize("leaf", ROWS)
def test_a_setting_of_the_model_acts(leaf):
    """Another value than the one before changes weights, loss or turns, and nothing is warned of."""
    method, beside, value = ROWS[leaf]
    table = leaf in TABLES
    before, after = shown(method, beside, table), shown(method, (*beside, f"{leaf}={value}"), table)
    assert before[0] != after[0], f"{leaf}={value} changes nothing for {method}"
    assert f"{leaf}=" not in after[1]
    hold("settings", leaf, of_shown(after[0]))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ae", "byol", "ddpm", "random-encoder"])
def test_a_setting_is_of_use_or_warned_of(method):
    """For each leaf a method either changes, or says that it has no use for it and changes nothing."""
    plain, wrong = shown(method, (), steps=1)[0], []
    for leaf, (_, beside, value) in ROWS.items():
        if beside or leaf in TABLES:
            continue
        try:
            found, told = shown(method, (f"{leaf}={value}",), steps=1)
        except UserError:
            continue  # said, in a sentence
        wrong += [(leaf, told)] if (found == plain) != (f"{leaf}=" in told) else []
    assert wrong == []


@pytest.mark.parametrize(
    ("method", "beside", "acts"),
    [("dsm", (), False), ("pdae", (), False), ("drl", ("predicts=eps",), False), ("drl", (), True)],
)
def test_a_perceptron_has_no_patches(method, beside, acts):
    """They are of use where a generator estimates x from the code, and warned of elsewhere."""
    patched, _, told = made(method, ("decoder.kind=mlp", *beside, "decoder.patch=2"))
    plain, _, _ = made(method, ("decoder.kind=mlp", *beside))
    shapes, before = ({k: v.shape for k, v in model.state_dict().items()} for model in (patched, plain))
    assert (shapes != before, "decoder.patch=" in told) == (acts, not acts)


@pytest.mark.slow
@pytest.mark.parametrize("leaf", TRAINED)
def test_a_setting_of_training_acts(leaf):
    """Three steps end with other weights."""
    beside = {"batch": ["train.budget=24ex"], "optimizer": ["code.dim=8"]}.get(leaf, [])
    before = train("ae", *beside) if leaf == "optimizer" else base("ae")  # Muon leaves thin layers to AdamW
    changed = train("ae", f"train.{leaf}={TRAINED[leaf]}", *beside)
    assert same(weights(before), weights(changed)), leaf
    log = (changed.directory / "metrics.jsonl").read_text().splitlines()
    hold(
        "trained", leaf, {"weights": seen_parts(weights(changed)), "log": [of_result(json.loads(line)) for line in log]}
    )


def test_logs_and_checkpoints_come_when_they_are_due(tmp_path):
    """Every second step of four a line, and the newest two checkpoints."""
    run = train("ae", "train.budget=64ex", "train.log_every=2", "train.checkpoint_every=3", out=tmp_path / "run")
    lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    assert [p.name[5:13] for p in sorted((run.directory / "checkpoints").iterdir())] == ["00000003", "00000004"]
