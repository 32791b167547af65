"""A lock, not an oracle: what is computed, read, printed and written today is kept in `tests/general/numbers/`.

Whoever changes a number on purpose gives its protocol a new name, or says in CHANGELOG.md why runs differ, and writes
the files anew with `make numbers`. Whether a number is right, the oracles say; many small mistakes move a number that
no oracle looks at.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from every_measure import leaves

FOLDER = Path(__file__).parent / "general" / "numbers"
MADE = FOLDER / "made.json"  # on what
WRITE = os.environ.get("DIFFREP_NUMBERS") == "write"
NUMBER = re.compile(r"(?<![\w.])[-+\N{MINUS SIGN}]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")
DIGITS = 6
OF_THE_MACHINE = re.compile(  # times, names of files and of weights; equally far neighbours and trees, which other
    # versions of scikit-learn order in another way
    r"/(data|key|weights|file|time|age)$|second|checksum|fingerprint|examples_per"
    r"|pixels/knn/(acc|se|low|high|bal|auroc)|/dci/(dis|comp|info|imp)"
)
ABSENT = "nothing stands here"
PLACES = re.compile(re.escape(tempfile.gettempdir()) + r"[^\s,;:'\"()<>]*/")
WEIGHTS = re.compile(r"(?<=weights )[0-9a-f]{8,}")


@cache
def kept(kind: str) -> dict[str, dict[str, Any]]:
    """What is kept of one kind: group -> where it stands -> value."""
    path = FOLDER / f"{kind}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def here() -> dict[str, str]:
    """The kind of processor, which rounds in its own way, and the libraries that order equals and draw in theirs."""
    versions = {name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn", "matplotlib")}
    return {"processor": torch.backends.cpu.get_cpu_capability(), **versions}


def comparable() -> bool:
    """Are the kept numbers those of this processor and of these libraries?"""
    return WRITE or json.loads(MADE.read_text()) == here()


def hold(kind: str, group: str, facts: Any) -> None:
    """Each value is the one that is kept, to rounding; with DIFFREP_NUMBERS=write it is kept from now on.

    Nothing is compared elsewhere than where the numbers were made; `test_numbers_stay.py` says so there.
    """
    if not comparable():
        return
    now = {place: simple(value) for place, value in leaves(facts)} or {"": "nothing"}
    if WRITE:
        assert "PYTEST_XDIST_WORKER" not in os.environ, "two processes would overwrite each other's groups"
        FOLDER.mkdir(exist_ok=True)
        kept(kind)[group] = now
        text = json.dumps(dict(sorted(kept(kind).items())), indent=0, sort_keys=True, ensure_ascii=False)
        (FOLDER / f"{kind}.json").write_text(text + "\n")
        MADE.write_text(json.dumps(here(), indent=0) + "\n")
        return
    assert group in kept(kind), f"{kind} {group} is new: make numbers"
    was = kept(kind)[group]
    moved = {place: (was.get(place, ABSENT), now.get(place, ABSENT)) for place in sorted(was.keys() | now.keys())}
    moved = {place: pair for place, pair in moved.items() if not alike(*pair, loose="weights" in place)}
    assert not moved, f"{kind} {group}: others than those that are kept (kept, now): {dict([*moved.items()][:12])}"


def whole(kind: str, groups: Iterable[str]) -> None:
    """What is kept of a kind are these groups, and none that is gone."""
    assert WRITE or set(kept(kind)) == set(groups)


def simple(value: Any) -> Any:
    """A value as JSON has it; of a number six digits."""
    if isinstance(value, Tensor | np.ndarray):
        return seen(torch.as_tensor(value))
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, bool | int | float | None):
        return value
    return WEIGHTS.sub("#", PLACES.sub("", str(value)))


def of_result(facts: Any) -> dict[str, Any]:
    """What a result says, but for what is of the machine."""
    return {place: value for place, value in leaves(facts) if not OF_THE_MACHINE.search(place)}


def seen(x: Tensor) -> str:
    """The shape of a tensor, and two weighted sums that the value and the place of each of its numbers move."""
    flat = torch.nan_to_num(x.detach().cpu().double(), nan=-77.0, posinf=1e9, neginf=-1e9).flatten()
    places = torch.arange(len(flat), dtype=torch.float64)
    sums = [float((flat * (places * k).cos()).sum() / max(len(flat), 1) ** 0.5) for k in (0.37, 1.91)]
    return f"{str(x.dtype).removeprefix('torch.')} {'x'.join(map(str, x.shape))}: {sums[0]:.6f} {sums[1]:.6f}"


def seen_each(values: list[float]) -> str:
    """As `seen`, of numbers of any size, each by its share of itself."""
    return seen((torch.tensor(values, dtype=torch.float64) * 1e3).asinh())


def seen_parts(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Each part of a model, by its weights in their order."""
    parts: dict[str, list[Tensor]] = {}
    for place, tensor in weights.items():
        parts.setdefault(re.split(r"[./]", place)[0], []).append(tensor.detach().double().flatten())
    shapes = short(str([(place, tuple(tensor.shape)) for place, tensor in sorted(weights.items())]))
    return {"shapes": shapes, **{part: seen(torch.cat(tensors)) for part, tensors in parts.items()}}


def short(text: str | bytes) -> str:
    """Eight digits of a hash, where nothing is rounded."""
    return hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest()[:8]


def normal(*shape: int, seed: int = 0) -> Tensor:
    """The same normal numbers each time, of float32."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def made(make: Callable[[], nn.Module]) -> nn.Module:
    """A network with the same first weights each time, in evaluation mode."""
    torch.manual_seed(3)
    return make().eval()


def alike(one: Any, two: Any, loose: bool = False) -> bool:
    """Whole numbers, words and truths are equal, others to two in a thousand, in a text to one of the last digit too.

    loose: ten times that, for weights, since a step has the same length whatever small gradient it follows.
    """
    if isinstance(one, str) and isinstance(two, str):
        numbers = NUMBER.findall(one), NUMBER.findall(two)
        same = NUMBER.sub("#", one) == NUMBER.sub("#", two)
        return one == two or (same and all(_near_words(a, b, loose) for a, b in zip(*numbers, strict=True)))
    if (isinstance(one, float) and isinstance(two, float | int)) or (isinstance(two, float) and isinstance(one, int)):
        return _near(one, two, 0.0, loose) or (math.isnan(one) and math.isnan(two))
    return type(one) is type(two) and one == two


def _near(one: float, two: float, most: float, loose: bool) -> bool:
    times = 10 if loose else 1
    return math.isclose(one, two, rel_tol=2e-3 * times, abs_tol=max(2e-4 * times, most))


def _near_words(one: str, two: str, loose: bool) -> bool:
    a, b = (float(word.replace(",", "").replace("\N{MINUS SIGN}", "-")) for word in (one, two))
    if "." not in one + two and "e" not in one + two:
        return a == b
    last = max(10.0 ** -len(re.sub(r"e.*", "", word.partition(".")[2])) for word in (one, two))
    return _near(a, b, 1.01 * last if last > 1e-6 else 0.0, loose)
