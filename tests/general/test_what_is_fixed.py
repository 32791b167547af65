"""Oracles 2 and 3 by reading: seeds and choices that are a fixed number stand in a table, so that no other one is fixed
by mistake."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "diffrep"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
SOURCES = {"manual_seed", "default_rng", "RandomState", "mix", "piece_seed", "noise_seed", "of_each"}
CHOICES = {
    "drop",
    "examples",
    "levels",
    "most",
    "random_state",
    "rate",
    "refine",
    "repeats",
    "seconds",
    "seed",
    "skipped",
}
CHOICES |= {"steps"}
FIXED = """
codes/flow.py: steps=400
codes/priors.py: manual_seed(0)
codes/priors.py: random_state=0
data/albums.py: levels=256
data/factors.py: RandomState(0)
data/places.py: random_state=0
data/readers/recordings.py: levels=0
data/values.py: levels=0
estimators/classifier.py: manual_seed(0)
measures/profile.py: Draws.of(0)
measures/semi.py: seed=0
methods/recipes.py: drop=0.5
models/latent_diffusion.py: steps=800
pages/run_pictures.py: random_state=0
probes/references.py: random_state=0
runs/callbacks.py: Draws.of(0)
runs/run.py: manual_seed(0)
shapes.py: repeats=1
testing.py: Draws.of(0)
testing.py: manual_seed(1)
testing.py: steps=3
"""  # a fit that every run makes alike, data that are drawn once, what is not asked for, or what has no other value


def fixed(text: str) -> Iterator[str]:
    """Seeds and choices that are written as a number."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            short = function if function == "Draws.of" else function.split(".")[-1]
            if node.args and short in {*SOURCES, "Draws.of"} and isinstance(node.args[0], ast.Constant):
                yield f"{short}({node.args[0].value})"
            pairs = [(one.arg, one.value) for one in node.keywords]
        elif isinstance(node, ast.Dict):
            pairs = [(key.value, value) for key, value in zip(node.keys, node.values, strict=True) if _is(key, str)]
        else:
            continue
        yield from (f"{word}={ast.unparse(value)}" for word, value in pairs if word in CHOICES and _is(value, float))


def _is(node: ast.expr | None, kind: type) -> bool:
    """A constant of that type; a whole number is a number too."""
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, kind)) and not isinstance(node.value, bool)


@pytest.mark.parametrize("file", FILES)
def test_no_seed_and_no_choice_is_fixed_but_those_of_the_table(file):
    known = {line.partition(": ")[2] for line in FIXED.splitlines() if line.startswith(f"{file}: ")}
    assert {*fixed((PACKAGE / file).read_text())} == known


@pytest.mark.parametrize(
    "wrong", ["Draws.of(0, device)", "torch.manual_seed(1)", "Side(seed=0)", "f(levels=8)", "{'skipped': 0}"]
)
def test_a_fixed_one_is_seen(wrong):
    assert [*fixed(wrong)]
