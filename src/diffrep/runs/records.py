"""What was found out about a run: files of results, which say of which weights they are."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from diffrep.errors import UserError
from diffrep.files import write_bytes, writing
from diffrep.training.checkpoints import Tensors, load_tensors

Facts = TypeVar("Facts", bound=Mapping[str, object])  # what a file of results holds
WEIGHTS, STAMP = "model.safetensors", "weights"  # the file of a run, and the name of the stamp in all others
METRICS, PROBES, PROFILE, DISTANCE = "metrics.json", "probes.json", "profile.json", "distance.json"
DISENTANGLE, FACTORS, READOUT, TIMES, SEMI = (
    "disentangle.json",
    "factors.json",
    "readout.json",
    "times.json",
    "semi.json",
)
RESULTS = (METRICS, PROBES, PROFILE, DISTANCE, DISENTANGLE, FACTORS, READOUT, TIMES, SEMI)
PICTURES = {PROFILE: "profile.png", TIMES: "times.png"}
FEATURES, SAMPLES = "features", "samples"  # folders
REPORT = "report.html"
DERIVED = (*RESULTS, *PICTURES.values(), REPORT, FEATURES, SAMPLES)  # all that follows from the weights of a run


def keep(directory: Path, name: str, facts: Facts, weights: str) -> Facts:
    """Write a file of RESULTS; returns its content: the facts, and the digest of the weights that they are of.

    What is not a number, such as the error of a single example, is null.
    """
    assert name in RESULTS, f"{name} would outlive its weights"
    stamped = {**plain(facts), STAMP: weights}
    write_bytes(directory / name, (json.dumps(stamped, indent=2) + "\n").encode())
    return cast(Facts, stamped)


def plain(facts: Any) -> Any:
    """Facts as JSON can say them: null for what is not a number."""
    if isinstance(facts, dict):
        return {name: plain(value) for name, value in facts.items()}
    if isinstance(facts, (list, tuple)):
        return [plain(value) for value in facts]
    return None if isinstance(facts, float) and math.isnan(facts) else facts


def current(directory: Path) -> dict[str, dict]:
    """Each name of RESULTS -> its facts; none of a file that is not there, or is of other weights than those there.

    UserError: a file that is broken.
    """
    found = {name: read(directory / name) for name in RESULTS}
    there = (directory / WEIGHTS).is_file() and any(found.values())
    weights = weights_digest(load_tensors(directory / WEIGHTS)[0]) if there else None
    return {name: facts if facts.get(STAMP) == weights else {} for name, facts in found.items()}


def read(path: Path) -> dict:
    """The facts of a JSON file, none where there is no such file; UserError where it is broken."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return facts if isinstance(facts, dict) else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): measure the run again.") from error


def remove(directory: Path) -> None:
    """Remove all that was derived from the weights of a run."""
    with writing(directory):
        for name in DERIVED:
            if (directory / name).is_dir():
                shutil.rmtree(directory / name)
            else:
                (directory / name).unlink(missing_ok=True)


def weights_digest(weights: Tensors) -> str:
    """16 hex digits over every weight of a model, by name."""
    flat = {name: value.detach().cpu().contiguous().reshape(-1) for name, value in sorted(weights.items())}
    return digest(*(part for name, value in flat.items() for part in (name, value.view(torch.uint8).numpy().tobytes())))


def digest(*parts: object) -> str:
    """16 hex digits over parts, bytes or what prints apart."""
    found = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else repr(part).encode()
        found.update(f"{len(content)} ".encode() + content)
    return found.hexdigest()[:16]
