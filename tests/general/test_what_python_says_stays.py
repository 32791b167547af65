"""A lock (`tests/locked.py`): what estimators, the explorer and a batch encoder answer, for each kind of rows."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import diffrep
from diffrep.errors import UserError
from diffrep.estimators import DiffusionClassifier, DiffusionEncoder
from diffrep.estimators.sizes import sizes
from diffrep.pages import explorer
from locked import hold, of_result, seen_parts, whole
from locked_files import of_array, of_table
from tiny import base, train

pytestmark = pytest.mark.slow
N = 41
RNG = np.random.default_rng(0)
NUMBERS, KINDS = RNG.normal(size=(N, 4)).round(3) * [1, 10, 0.1, 3] + [0, 50, 0, -3], RNG.integers(0, 3, N)
PIXELS = RNG.binomial(255, 0.2 + 0.3 * KINDS[:, None, None], (N, 5, 4)).astype(np.uint8)
FRAME = pd.DataFrame(
    {
        "size": NUMBERS[:, 0], "count": RNG.integers(0, 9, N), "open": KINDS > 1,
        "town": pd.Series(np.array(["x", "y", "z"], object)[RNG.integers(0, 3, N)], dtype=object),
        "when": pd.date_range("2023-11-05", periods=N, freq="36h"),
        "gap": np.where(np.arange(N) % 6 == 1, np.nan, NUMBERS[:, 3]),
    }
)  # fmt: skip
ROWS: dict[str, Any] = {
    "numbers": NUMBERS, "pictures": PIXELS, "colours": np.repeat(PIXELS[..., None], 3, 3), "a frame": FRAME,
    "flat pictures": PIXELS.reshape(N, -1), "between zero and one": PIXELS / 255.0,
}  # fmt: skip
SMALL = {"decoder.width": 2, "encoder.width": 4, "train.log_every": 1}


def encoder(**how: Any) -> DiffusionEncoder:
    settings = SMALL | how.pop("settings", {})
    return DiffusionEncoder(dim=3, budget="60ex", batch=16, random_state=2, verbose=0, settings=settings, **how)


def plain(rows: Any) -> Any:
    if isinstance(rows, pd.DataFrame):
        return of_table(pa.Table.from_pandas(rows))
    return of_array(np.asarray(rows))


@pytest.mark.parametrize("name", ROWS)
def test_what_an_estimator_says_stays(name):
    rows = ROWS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape = (1, 5, 4) if name == "flat pictures" else None
        method = "vae-vdm" if name in ("numbers", "a frame") else "vae"  # the latter decodes at once
        one = encoder(shape=shape, method=method).fit(rows, KINDS)
        facts = {"codes": plain(one.transform(rows)), "spread": plain(one.code_spread(rows[:7])[1]),
                 "back": plain(one.inverse_transform(one.transform(rows[:6]))), "new": plain(one.sample(5, 3)),
                 "bounds": plain(one.score_samples(rows[:9])), "score": one.score(rows[3:]),
                 "bound": of_result(one.bound_), "history": [of_result(line) for line in one.history_],
                 "features": one.n_features_in_, "names": str(one.get_feature_names_out().tolist())}  # fmt: skip
        before = facts["history"][-1]["/examples"]
        one.partial_fit(rows[5:])
        facts["later"] = {"codes": plain(one.transform(rows)), "line": of_result(one.history_[-1]), "before": before}
    hold("estimators", name, facts)


@pytest.mark.parametrize("tune", [False, True])
def test_what_a_classifier_says_stays(tune):
    """With few labels, words among them; with the encoder trained further."""
    y = np.array(["a", "b", "c"], object)[KINDS]
    y[np.arange(N) % 3 == 1] = None
    one = DiffusionClassifier(encoder(method="ae"), strength=0.5, finetune=tune).fit(NUMBERS, y)
    hold("estimators", f"classifier {tune}", {
        "classes": str(one.classes_.tolist()), "predicted": str(one.predict(NUMBERS).tolist()),
        "shares": plain(one.predict_proba(NUMBERS)), "scores": plain(one.decision_function(NUMBERS[:4])),
        "sizes": {str(rows): str(sizes(rows, shape, {})) for rows, shape in ((300, (5,)), (90_000, (3, 32, 32)))},
    })  # fmt: skip


def test_what_an_estimator_of_a_path_says_stays(tmp_path):
    """Its seed cuts the splits."""
    np.save(tmp_path / "a.npy", PIXELS)
    one = encoder(method="ae").fit(str(tmp_path / "a.npy"))
    facts = {"known": one.run_.card.fingerprints, "examples": one.run_.card.examples, "seed": one.settings_.seed}
    hold("estimators", "a path", facts | {"codes": plain(one.transform(PIXELS))})


def of_explorer(method: str) -> dict[str, Any]:
    """Everything that the explorer's tabs ask for."""
    here = explorer.Explorer.of(base(method).directory)
    x, y = here.example(3), here.example(8)
    asked: dict[str, Callable[[], Any]] = {
        "ends": lambda: here.log_snr_ends, "called": lambda: here.called(4),
        "inspect": lambda: vars(here.inspect(x, 1, 2)),
        "noise": lambda: vars(here.at_noise(x, 0.5, seed=2)), "between": lambda: here.between(x, y, 3, 1),
        "walk": lambda: here.walk(x, here.direction("principal direction", "1"), 2.0, 3, 1),
        "number": lambda: here.direction("number", "2"), "class": lambda: here.direction("class", "1"),
        "directions": lambda: str([here.directions(kind) for kind in ("number", "principal direction", "class")]),
        "samples": lambda: here.samples(4, 3), "pointed": lambda: here.pointed_at(300, 200),
    }  # fmt: skip
    facts = {}
    for name, ask in asked.items():
        try:
            facts[name] = ask()
        except (UserError, ValueError) as mistake:  # what the method has not
            facts[name] = str(mistake)
    return facts


EXPLORED = ("vae-vdm", "tdrl", "ae", "vdm")


@pytest.mark.parametrize("method", EXPLORED)
def test_what_the_explorer_shows_stays(method, monkeypatch, tmp_path):
    for name, value in {"STEPS": 2, "EXACT_STEPS": 3, "MAPPED": 9, "SEARCHED": 31, "NOISES": 4}.items():
        monkeypatch.setattr(explorer, name, value)
    facts = of_explorer(method)
    Image.fromarray(PIXELS[0].repeat(3, 0)).save(tmp_path / "p.png")
    facts["uploaded"] = explorer.Explorer.of(base(method).directory).uploaded(tmp_path / "p.png")
    hold("explored", method, facts)


@pytest.mark.parametrize("method", ["ae", "vae"])
def test_a_continued_run_stays(method):
    """Its log and its weights, and what it says of itself."""
    run = train(method, "train.budget=32ex")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = diffrep.train(
            run.settings.data.source, run.directory, method, "90ex", [f"seed={run.settings.seed}", *changed(run)]
        )
    log = [of_result(json.loads(line)) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    hold("continued", method, {"log": log, "weights": seen_parts(again.model.state_dict()), "result": {
        name: value for name, value in vars(again.result).items() if isinstance(value, int)}})  # fmt: skip


def changed(run: Any) -> list[str]:
    from diffrep.runs.summary import changed as of

    return [one for one in of(run.settings) if not one.startswith(("method", "train.budget", "seed"))]


def test_nothing_is_kept_of_what_is_gone():
    whole("estimators", {*ROWS, "a path", "classifier False", "classifier True"})
    whole("explored", EXPLORED)
    whole("continued", ("ae", "vae"))
