"""What is disturbed: training, evaluation, encoding and a study, each small, and what it must leave behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import torch

import tiny
from diffrep.errors import UserError
from diffrep.runs import encode
from diffrep.training.checkpoints import load_tensors
from faults.children import command, run

encode.ROWS = 20  # so that 96 examples make five parts
SET = [word for change in tiny.SMALL for word in ("--set", change)]
METHODS = ("vae-vdm", "ae", "adversarial-drl", "byol")
TIMES = {"timings.jsonl"}  # depend on the machine
SECONDS = ("seconds", "images_per_second", "checksum")  # of a study, what its own training took
SHOWS = {"report.html", "table.csv", "table.md", "table.tex"}  # show them; made again from study.json as a whole
PLAN = """
name = "small"
data = "{data}"
budget = "32ex"
seeds = [0]
levels = 1
measure = ["bound"]
set = {changes}
[[runs]]
name = "with"
method = "vae-vdm"
[[runs]]
name = "plain"
method = "ae"
"""


@dataclass(frozen=True)
class Work:
    """A command on files below `folder`, and what it writes there."""

    name: str
    folder: Path
    words: tuple[object, ...]

    def begin(self) -> Callable[[], int]:
        return command(*self.words)

    def finished(self) -> dict[str, bytes]:
        """Every file, without what depends on the time that it took."""
        files = {str(p.relative_to(self.folder)): p for p in sorted(self.folder.rglob("*")) if p.is_file()}
        return {name: _timeless(path) for name, path in files.items() if path.name not in TIMES}

    def standing(self) -> dict[str, float]:
        """How far each part of the work has come; files that may be seen are whole. AssertionError where one is not."""
        place: dict[str, float] = {}
        for path in self.folder.rglob("*"):
            name = str(path.relative_to(self.folder))
            if path.name.startswith(".") or not path.is_file():
                continue
            if path.suffix == ".safetensors":
                step = _whole(path)
                key = str(path.parent.relative_to(self.folder)) if path.name.startswith("step-") else name
                place[key] = max(place.get(key, 0), step)
            elif path.suffix == ".parquet":
                place[name if ".parts" not in name else str(Path(name).parent)] = pq.read_metadata(path).num_rows
            elif path.suffix == ".json":
                content = json.loads(path.read_text())
                place[name] = len(content.get("runs", ())) if path.name == "study.json" else 1
        return place


def _whole(path: Path) -> float:
    try:
        return float(load_tensors(path)[1]["step"])
    except UserError as error:
        raise AssertionError(f"{path} is torn: {error}") from error


def _timeless(path: Path) -> bytes:
    """The content of a file; of a checkpoint and of a study without the seconds that training took."""
    if path.name in SHOWS:
        return b"shown" if path.stat().st_size else b"empty"
    if path.name == "study.json":
        return json.dumps(_without(json.loads(path.read_text())), sort_keys=True).encode()
    if path.suffix != ".safetensors":
        return path.read_bytes()
    tensors, about = load_tensors(path)
    about.pop("seconds", None)
    parts = [json.dumps(about, sort_keys=True).encode()]
    for name in sorted(tensors):
        parts += [name.encode(), tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()]
    return b"\0".join(parts)


def _without(content: object) -> object:
    """Content of JSON without the seconds and what follows from them."""
    if isinstance(content, dict):
        return {name: _without(value) for name, value in content.items() if name not in SECONDS}
    return [_without(value) for value in content] if isinstance(content, list) else content


def training(method: str, folder: Path, budget: str = "96ex") -> Work:
    words = ("train", "--data", tiny.source(), "--method", method, "--out", folder / "run", "--budget", budget, *SET)
    quick = ("--set", "prior.kind=normal") if method == "diffae" else ()
    return Work(f"train {method}", folder, (*words, *quick))


@cache
def trained(method: str) -> Path:
    """A folder with a finished run, shared."""
    folder = Path(tiny.mkdtemp(dir=tiny.FOLDER))
    assert training(method, folder).begin()() == 0
    return folder


def evaluation(method: str, folder: Path) -> Work:
    shutil.copytree(trained(method), folder, dirs_exist_ok=True)
    return Work(f"evaluate {method}", folder, ("evaluate", folder / "run", "--levels", 1))


def encoding(method: str, folder: Path) -> Work:
    folder.mkdir(parents=True, exist_ok=True)
    words = ("encode", trained(method) / "run", tiny.source(), "-o", folder / "codes.parquet")
    return Work(f"encode {method}", folder, words)


def study(folder: Path) -> Work:
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder.parent / f"{folder.name}.toml"
    plan.write_text(PLAN.format(data=tiny.source(), changes=json.dumps(list(tiny.SMALL))))
    return Work("study", folder, ("study", plan, "-o", folder / "out"))


KINDS: dict[str, Callable[[Path], Work]] = {
    **{f"train {method}": lambda folder, m=method: training(m, folder) for method in METHODS},
    "evaluate vae-vdm": lambda folder: evaluation("vae-vdm", folder),
    "encode vae-vdm": lambda folder: encoding("vae-vdm", folder),
    "study": study,
}


def warmed() -> None:
    """Every work once in this process, so that children which are forked from it import nothing."""
    for begin in KINDS.values():
        begin(Path(tiny.mkdtemp(dir=tiny.FOLDER)) / "w").begin()()


@cache
def unbroken(kind: str) -> tuple[dict[str, bytes], float, int]:
    """The files of a work that nobody disturbs, the seconds that it takes, and its operations on files."""
    from faults import children

    folder = Path(tiny.mkdtemp(dir=tiny.FOLDER)) / "w"
    work = KINDS[kind](folder)
    arm = children.faulty(folder, 0, 0) if children.has_shim() else lambda: None
    done = run(work.begin(), arm)
    assert done.code == 0, done.said
    return work.finished(), done.seconds, done.seen


@cache
def megabytes(kind: str) -> float:
    """By how much the address space of a work must be free to grow for it to end well, within a sixteenth of the peak.

    The peak is more than that: the allocator reserves what it can do without.
    """
    from faults import children

    place = Path(tiny.mkdtemp(dir=tiny.FOLDER))
    work, peak = KINDS[kind](place / "w"), place / "peak"

    def measured() -> int:
        before = children.address_space("VmSize")
        code = work.begin()()
        peak.write_text(str(children.address_space("VmPeak") - before))
        return code

    done = run(measured)
    assert done.code == 0, done.said
    low, high = 0.0, float(peak.read_text())
    for number in range(4):
        middle = (low + high) / 2
        done = run(KINDS[kind](place / f"w{number}").begin(), children.starved(middle))
        low, high = (low, middle) if done.code == 0 else (middle, high)
    return high
