"""A lock (`tests/locked.py`): what each command prints and writes, of runs on small odd data, told as stories."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from diffrep.cli import app
from diffrep.commands import console
from locked import hold, whole
from locked_files import of_files, plain_leaves, plainly
from runs_at_hand import diffrep

pytestmark = pytest.mark.slow
SMALL = (
    "--set train.batch=32 --set decoder.width=4 --set encoder.width=4 --set code.dim=3 --set train.log_every=2"
    " --set decoder.multipliers=[1,1] --set train.checkpoint_every=3"
)
TINY = f"--budget 100ex {SMALL}"
STORIES = {
    "pictures": f"""
        data pictures.npz
        data pictures.npz --json --set data.levels=9
        train --data pictures.npz --method vae-vdm --out a {TINY} --set seed=1
        train --out a --budget 160ex --json
        train --out a --budget 160ex
        evaluate a --levels 3 --refine 1
        profile a --levels 2 -n 9
        probe a --protocols linear,knn,few --few 1,2 --draws 3
        probe a --labels ink --protocols regression --most 20 --json
        probe a --labels kind --protocols regression
        distance a -n 20 --steps 2
        distance a -n 20 --sampler heun --steps 1 --spacing time --seed 3 --json
        disentangle a --most 30
        sample a -n 5 --steps 2 -o o/s.npz
        sample a -n 3 --steps 2 --sampler ddim --seed 2 -o o/s.png
        sample a -n 2 --steps 2 --t-init 0.6 --start uniform -o o/drawn
        reconstruct a pictures.npz -n 3 --per-code 2 --steps 2 -o o/r.png
        reconstruct a pictures.npz -n 3 --steps 2 --seed 4 -o o/r.npz
        reconstruct a pictures.npz -n 2 --exact --steps 2 -o o/e.npy
        interpolate a 1 7 --points 3 --steps 2 -o o/i.npy
        encode a pictures.npz -o o/codes.parquet
        sample a --codes o/codes.parquet --steps 1 -o o/c.npy
        probe o/codes.parquet --protocols linear --seed 1
        doctor a
        doctor a --json
        report a
        train --data pictures.npz --method ae --out b {TINY}
        evaluate b --json
        report b -o o/b.html
        compare a b --csv o/t.csv --latex o/t.tex --html o/t.html
        compare b a --json
        runs . --json
        runs .
    """,
    "a table": f"""
        data shop.csv --set data.covariate=town
        train --data shop.csv --method vae-vdm --out a {TINY} --set data.columns=price,size --set data.covariate=town
        evaluate a --levels 2
        probe a --protocols linear,mlp
        sample a -n 4 --steps 2 -o o/s.csv
        sample a -n 4 --steps 2 -o o/s.parquet
        reconstruct a shop.csv -n 3 --steps 2 -o o/r.npz
        interpolate a 0 4 --points 2 --steps 2 -o o/i.csv
        encode a shop.csv -o o/codes.parquet --json
        train --data shop.csv --method drl --out b {TINY} --set views.noise=0.1 --detail coarse
        evaluate b --levels 2 --json
        semi b --labels-per-class 2 --seeds 2 --steps 3 --most 20
        profile b --levels 2 --json
        report b
    """,
    "times": f"""
        train --data pictures.npz --method tdrl --out a {TINY}
        times a --times 1,2 --epochs 2
        probe a --t 0.3 --protocols knn
        profile a --levels 2
        encode a pictures.npz --t-grid 2 -o o/codes.parquet
        train --data pictures.npz --method ddpm --out b {TINY} --detail band:-2:3
        readout b --levels 2 --search 12 --most 20 --seed 1
        readout b --levels 1 --search 20 --most 12 --json
        evaluate b --levels 2
        sample b -n 2 --steps 2 -o o/s.npy
        report b
        train --data pictures.npz --method ae --out c {TINY} --set train.lr=1e30 --set train.warmup=0.0
        doctor c
    """,
    "a study": """
        study study.toml -o o
        study study.toml -o o --json
    """,
    "a benchmark": f"""
        benchmark --data pictures.npz -o o --budget 64ex --methods ae,pixels,pca --seeds 2 --levels 1 {SMALL}
        benchmark --data pictures.npz -o curves --budget 32ex,64ex --methods ae --seeds 1 --json {SMALL}
    """,
    "what there is": """
        methods
        methods --json
        settings
        settings --json
        data digits
        data digits-factors --json
    """,
    "mistakes": """
        train --data nothing --method ae --out a
        train --data pictures.npz --method vae_vdm --out a
        train --data pictures.npz --method ae --out a --set train.lrr=1
        evaluate nothing
        sample nothing -o a.doc
        compare a a
        runs nothing
        benchmark --data pictures.npz -o o
    """,
}
STUDY = """
name = "small"
about = "Is the lock shut?"
data = "pictures.npz"
budget = "64ex"
seeds = [0, 1]
set = ["train.batch=32", "decoder.width=4", "encoder.width=4", "code.dim=3", "predicts=edm"]
measure = ["bound", "probes", "information", "distance", "factors", "appearance"]
levels = 2
refine = 1
[[runs]]
name = "A code"
method = "vae-vdm"
twin = true
[[runs]]
name = "Plain"
method = "ae"
set = ["code.dim=2"]
[axes.noise]
linear = ["noise.kind=linear"]
"""
SKIPPED = {"explore", "export"}  # a server; and a file that its library writes, held to the model's codes by its tests


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Pictures of 5 x 6 with seven grey levels, three classes and gaps among them; a table of prices."""
    rng = np.random.default_rng(0)
    parts = {}
    for split, count in {"train": 67, "valid": 19, "test": 29}.items():
        y = rng.integers(0, 3, count)
        x = rng.binomial(6, (0.15 + 0.3 * y)[:, None, None], (count, 5, 6)).astype(np.uint8)
        words = np.array(["cat", "cow", "dog"])[y]
        parts |= {f"x_{split}": x, f"y_{split}": np.where(np.arange(count) % 11 == 5, "", words)}
        parts[f"kind_{split}"] = y
        parts[f"ink_{split}"] = x.mean((1, 2)) + rng.normal(size=count) / 9
    np.savez(tmp_path / "pictures.npz", **parts)
    rows = ["price,size,town,label"]
    for i in range(90):
        size = rng.normal()
        rows.append(f"{40 + 9 * size + rng.normal():.3f},{size:.4f},{'xyz'[i % 7 % 3]},{'yes' if size > 0.2 else 'no'}")
    (tmp_path / "shop.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffrep.runs.summary._seconds", lambda directory: 2.0)
    monkeypatch.setattr(console, "EVERY", float("inf"))  # a slow machine says how far it is
    monkeypatch.setattr(console, "out", type(console.out)(width=240, emoji=False, markup=False))
    return tmp_path


@pytest.mark.parametrize("name", STORIES)
def test_what_commands_say_stays(name, place, capsys, recwarn):
    """Each in its turn: its exit code, what it says, and at the end every file."""
    facts, before = {}, {*place.rglob("*")}
    for number, line in enumerate(STORIES[name].strip().splitlines()):
        words = shlex.split(line)
        capsys.readouterr()
        code = diffrep(*words)
        out, err = capsys.readouterr()
        said = plain_leaves(json.loads(out), place) if code == 0 and "--json" in words else plainly(out, place)
        told = [str(one.message) for one in recwarn.list if one.category is UserWarning]
        recwarn.clear()
        facts[f"{number:02} {words[0]}"] = {"code": code, "out": said, "err": plainly(err, place), "warned": told}
    hold("commands", name, facts | {"files": of_files(place, before)})


def test_every_command_has_its_turn():
    told = {line.split()[0] for story in STORIES.values() for line in story.strip().splitlines()}
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert names - told == SKIPPED
    whole("commands", STORIES)
