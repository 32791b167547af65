"""Tensors on disk: safetensors files, written at once, with a checksum, never pickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from diffrep.errors import UserError, lacks_memory, reason_of
from diffrep.files import write_bytes
from diffrep.training.interface import Weights
from diffrep.training.sharding import part_of

FORMAT = 1  # of the layout of our files
_KEY = "diffrep"  # of our metadata in the header

Tensors = dict[str, Tensor]


class BrokenFile(UserError):
    """A file of tensors that is cut short, changed, or not ours."""


def save_tensors(path: Path, tensors: Tensors, about: dict) -> None:
    """Write tensors and their metadata (JSON) at once, with a checksum over both."""
    plain = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    sealed = {**about, "format": FORMAT, "checksum": _checksum(plain, about)}
    write_bytes(path, safetensors.torch.save(plain, metadata={_KEY: json.dumps(sealed)}))


def load_tensors(path: Path) -> tuple[Tensors, dict]:
    """Tensors (on the CPU) and metadata of a file; BrokenFile where it is cut short or changed."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            stated = (file.metadata() or {}).get(_KEY)
            sealed = {} if stated is None else json.loads(stated)
            if not isinstance(sealed, dict):
                raise ValueError("its header states no metadata")
            tensors = {name: file.get_tensor(name) for name in file.keys()} if sealed else {}  # noqa: SIM118
    except (OSError, RuntimeError) as error:  # torch raises the latter where a file cannot be opened
        if lacks_memory(error) or (isinstance(error, RuntimeError) and "open file" not in str(error)):
            raise
        raise BrokenFile(f"{path} cannot be read ({reason_of(error)}).") from error
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise BrokenFile(f"{path} is not a whole file of diffrep ({error}).") from error
    if stated is None:
        raise BrokenFile(f"{path} holds tensors of another library: its header does not name diffrep.")
    if (version := sealed.pop("format", None)) != FORMAT:
        raise BrokenFile(
            f"{path} was written by a newer diffrep (format {version}, and this one knows {FORMAT}): pip install -U"
            " diffrep."
        )
    if sealed.pop("checksum", None) != _checksum(tensors, sealed):
        raise BrokenFile(f"{path} was changed after it was written: its checksum does not match.")
    return tensors, sealed


def load_weights(model: Weights, path: str | Path) -> dict:
    """Load the weights of a file into a model of the same structure; the metadata of the file (weights, step, ...)."""
    tensors, about = load_tensors(Path(path))
    fill(model, tensors, path)
    return about


@torch.no_grad()
def fill(model: Weights, tensors: Tensors, origin: str | Path) -> None:
    """Copy tensors into a model's state; a UserError that names the first tensor that does not fit."""
    state = model.state_dict()
    for name in sorted(state.keys() | tensors.keys()):
        came = tuple(tensors[name].shape) if name in tensors else "nothing"
        expected = tuple(state[name].shape) if name in state else "nothing"
        if came != expected and (came, expected) != ((), (1,)):  # earlier versions stored a single number without axis
            raise UserError(
                f"{origin} holds weights of another model: expected {name} to be {expected}, got {came}; use the"
                " settings it was trained with, or train a new run."
            )
    for name, value in state.items():
        value.copy_(part_of(tensors[name], value))


class Checkpoints:
    """The checkpoints of a run, step-00001234.safetensors and so on: the newest `keep` stay."""

    def __init__(self, directory: Path, keep: int = 2):
        self.directory, self.keep = directory, keep

    def paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.directory.glob("step-*.safetensors"))

    def save(self, step: int, tensors: Tensors, about: dict) -> Path:
        """Write the state at a step, then remove what is older than the newest `keep`."""
        path = self.directory / f"step-{step:08d}.safetensors"
        save_tensors(path, tensors, {**about, "step": step})
        self.prune()
        return path

    def prune(self) -> None:
        """Remove what is older than the newest `keep`, and what a kill left half written."""
        for old in [*self.paths()[: -self.keep], *self.directory.glob(".step-*.tmp")]:
            old.unlink()

    def newest(self, warn: Callable[[str], None]) -> tuple[Tensors, dict] | None:
        """The newest checkpoint that is whole, None where there is none; broken ones are reported and skipped."""
        paths, broken = self.paths(), []
        for path in reversed(paths):
            try:
                content = load_tensors(path)
            except BrokenFile as error:
                broken.append(error)
                continue
            for reason in broken:
                warn(f"{reason} It is skipped.")
            return content
        if paths:
            raise UserError(
                f"every checkpoint in {self.directory} is broken ({', '.join(p.name for p in paths)}): restart the run,"
                " or put back a copy."
            )
        return None


def _checksum(tensors: Tensors, about: dict) -> str:
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
