"""Files of results of a run, each with the digest of the weights that it is about."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast

import torch

from diffrep.errors import UserError
from diffrep.files import plain, sealed, unsealed, write_bytes, writing
from diffrep.training.checkpoints import Tensors, load_tensors

Content = TypeVar("Content", bound=Mapping[str, object])  # what a file of results holds
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


def keep(directory: Path, name: str, content: Content, weights: str) -> Content:
    """Write a file of RESULTS; returns its content with the digest of the weights.

    NaN, such as the error of a single example, becomes null.
    """
    assert name in RESULTS, f"{name} would outlive its weights"
    stamped = {**plain(content), STAMP: weights}
    write_bytes(directory / name, sealed(stamped))
    return cast(Content, stamped)


def current(directory: Path) -> dict[str, dict]:
    """Each name of RESULTS -> its content; empty for a missing file, or one about other weights than the present ones.

    UserError: a file that is broken.
    """
    results = {name: read(directory / name) for name in RESULTS}
    there = (directory / WEIGHTS).is_file() and any(results.values())
    weights = weights_digest(load_tensors(directory / WEIGHTS)[0]) if there else None
    return {name: content if content.get(STAMP) == weights else {} for name, content in results.items()}


def read(path: Path) -> dict:
    """The content of a JSON file, empty where there is no such file; UserError where it is broken."""
    try:
        content = unsealed(path) if path.is_file() else {}
        return content if isinstance(content, dict) else {}
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
    return digest(*(item for name, value in flat.items() for item in (name, value.view(torch.uint8).numpy().tobytes())))


def digest(*values: object) -> str:
    """16 hex digits over values, each bytes or an object with a distinct repr."""
    sha = hashlib.sha256()
    for value in values:
        content = value if isinstance(value, bytes) else repr(value).encode()
        sha.update(f"{len(content)} ".encode() + content)
    return sha.hexdigest()[:16]
