"""One trial of each kind of fault: a number -> counts of what happened. The same number is the same trial."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

import tiny
from diffrep import runs
from diffrep.data import albums
from diffrep.errors import UserError
from diffrep.runs import records
from diffrep.runs.directory import settings_of
from diffrep.training import journal
from faults import children, works
from faults.children import FAIL, FULL, KILL, READ, Outcome
from faults.inputs import inputs
from faults.works import KINDS, Work, unbroken

MOST = 5  # kills of one work, after which it may end
BAD = ("lost", "differing", "untold", "silent", "torn", "executed")  # what must never happen


def kill(number: int) -> Counter[str]:
    """A work is killed again and again, at random moments or at its n-th operation on a file, and then ends.

    lost: something that was there before a kill is not there after it. differing: at the end, a file is not that of an
    unbroken work.
    """
    rng, counts = random.Random(f"kill {number}"), Counter(trials=1)
    kind = list(KINDS)[number % len(KINDS)]
    expected, seconds, operations = unbroken(kind)
    with _folder() as folder:
        work, place = KINDS[kind](folder), {}
        for _ in range(MOST):
            if children.has_shim() and rng.random() < 0.6:
                done = children.run(work.begin(), children.faulty(folder, KILL, rng.randint(1, operations)))
            else:
                done = children.run(work.begin(), after=seconds * rng.random())
            if done.signal is None:
                counts["untold"] += not done.told
                break
            counts["kills"] += 1
            now, place = _standing(work, counts), place
            counts["lost"] += any(now.get(name, -1) < value for name, value in place.items() if ".parts" not in name)
            place = now
        _ends_as_unbroken(work, expected, counts)
    return counts


def disk(number: int) -> Counter[str]:
    """A write fails: all from the n-th operation on for want of room, or one on a broken disk, which is then mended."""
    rng, counts = random.Random(f"disk {number}"), Counter(trials=1)
    kind = list(KINDS)[number % len(KINDS)]
    expected, _, operations = unbroken(kind)
    with _folder() as folder:
        work = KINDS[kind](folder)
        how, error = rng.choice(((FULL, errno.ENOSPC), (FAIL, errno.EIO), (FAIL, errno.ENOSPC), (FULL, errno.EDQUOT)))
        done = children.run(work.begin(), children.faulty(folder, how, rng.randint(1, operations), error))
        _noted(done, counts, kind)
        _standing(work, counts)
        _ends_as_unbroken(work, expected, counts)
    return counts


def unreadable(number: int) -> Counter[str]:
    """One of the first reads of a continued work fails; then the disk is mended."""
    rng, counts = random.Random(f"read {number}"), Counter(trials=1)
    kind = list(KINDS)[number % len(KINDS)]
    expected, seconds, _ = unbroken(kind)
    with _folder() as folder:
        work = KINDS[kind](folder)
        children.run(work.begin(), after=seconds * rng.random())
        _noted(children.run(work.begin(), children.faulty(folder, READ, rng.randint(1, 30), errno.EIO)), counts, kind)
        _standing(work, counts)
        _ends_as_unbroken(work, expected, counts)
    return counts


def full(number: int) -> Counter[str]:
    """A real file system without room: a small tmpfs, which is then made larger. None where none may be mounted."""
    rng, counts = random.Random(f"full {number}"), Counter(trials=1)
    kind = list(KINDS)[number % len(KINDS)]
    expected, *_ = unbroken(kind)
    size = sum(map(len, expected.values()))
    with _folder() as place:
        place.mkdir(parents=True)
        mounted = ["mount", "-t", "tmpfs", "-o", f"size={max(4096, int(size * rng.uniform(0.1, 0.9)))}", "tmpfs"]
        if subprocess.run([*mounted, str(place)], capture_output=True).returncode:
            return Counter()
        try:
            work = KINDS[kind](place / "w")
            _noted(children.run(work.begin()), counts, kind)
            _standing(work, counts)
            subprocess.run(["mount", "-o", "remount,size=256m", str(place)], check=True)
            _ends_as_unbroken(work, expected, counts)
        except OSError:  # the run to be measured did not fit itself
            return Counter()
        finally:
            subprocess.run(["umount", str(place)], check=True)
    return counts


def changed_byte(number: int) -> Counter[str]:
    """One byte of one file of a measured run is changed: each reader says so, or gives the same as before.

    silent: something else is read without a word. untold: an error that is no sentence.
    """
    rng, counts = random.Random(f"byte {number}"), Counter(trials=1)
    with _folder() as folder:
        shutil.copytree(_measured(), folder)
        run = folder / "run"
        files = sorted(p for p in run.rglob("*") if p.is_file() and p.name != "timings.jsonl" and p.stat().st_size)
        file = files[number % len(files)]
        content = bytearray(file.read_bytes())
        at = rng.randrange(min(len(content), rng.choice((200, 4000, len(content)))))
        content[at] ^= rng.randrange(1, 256)
        file.write_bytes(content)
        counts.update(_read_again(run, str(file.relative_to(run))))
    return counts


def memory(number: int) -> Counter[str]:
    """30 to 95 % of the memory that a work needs: a sentence, or an end by the system; with all of it the work ends as
    unbroken."""
    rng, counts = random.Random(f"memory {number}"), Counter(trials=1)
    kind = list(KINDS)[number % len(KINDS)]
    expected, *_ = unbroken(kind)
    with _folder() as folder:
        work = KINDS[kind](folder)
        done = children.run(work.begin(), children.starved(works.megabytes(kind) * rng.uniform(0.3, 0.95)))
        counts["killed"] += done.signal is not None
        if done.signal is None:
            _noted(done, counts, kind)
        _standing(work, counts)
        _ends_as_unbroken(work, expected, counts)
    return counts


def worker(number: int) -> Counter[str]:
    """A process that reads data ahead is killed: one sentence, and the same command goes on to the same weights."""
    rng, counts = random.Random(f"worker {number}"), Counter(trials=1)
    albums.SMALL = 0  # every set of pictures is read lazily
    try:
        with _folder() as folder:
            work = _lazily(folder)
            with TemporaryDirectory() as aside:
                said, seen, began = Path(aside) / "said", Path(aside) / "seen", time.monotonic()
                child = children.start(work.begin(), lambda: None, said, seen)
                victim = _child_of(child, 10.0)
                time.sleep(0.3 * rng.random())
                if victim is not None:
                    try:
                        os.kill(victim, signal.SIGKILL)
                        counts["kills"] += 1
                    except ProcessLookupError:
                        pass
                _noted(children.end(child, said, seen, began), counts, "worker")
            _standing(work, counts)
            _ends_as_unbroken(work, _unbroken_lazily(), counts)
    finally:
        albums.SMALL = 2**30
    return counts


def second(number: int) -> Counter[str]:
    """The same work a second time, while the first is at it: it ends too, or says so; the result is that of one."""
    rng, counts = random.Random(f"second {number}"), Counter(trials=1)
    kind = list(KINDS)[number % len(KINDS)]
    expected, seconds, _ = unbroken(kind)
    with _folder() as folder, TemporaryDirectory() as aside:
        work = KINDS[kind](folder)
        began, several = time.monotonic(), []
        for i in range(2):
            said, seen = Path(aside) / f"said{i}", Path(aside) / f"seen{i}"
            several.append((children.start(work.begin(), lambda: None, said, seen), said, seen, began))
            time.sleep(seconds * rng.random() / 2)
        for done in [children.end(*one) for one in several]:
            _noted(done, counts, kind)
        _ends_as_unbroken(work, expected, counts)
    return counts


def clock(number: int) -> Counter[str]:
    """The clock jumps back and forth: a work ends as if it had not."""
    counts, kind = Counter(trials=1), list(KINDS)[number % len(KINDS)]
    with _folder() as folder:
        work = KINDS[kind](folder)
        _noted(children.run(work.begin(), children.jumping(number)), counts, kind)
        counts["differing"] += _differing(work.finished(), unbroken(kind)[0], counts)
    return counts


TRIALS: dict[str, Callable[[int], Counter[str]]] = {
    "kill": kill,
    "disk": disk,
    "unreadable": unreadable,
    "full": full,
    "changed_byte": changed_byte,
    "memory": memory,
    "worker": worker,
    "second": second,
    "clock": clock,
    "inputs": inputs,
}


class _folder(TemporaryDirectory):
    """A path that is not there yet, in a folder that goes afterwards."""

    def __init__(self) -> None:
        super().__init__(prefix="diffrep-fault-")

    def __enter__(self) -> Path:
        return Path(super().__enter__()) / "w"


def _noted(done: Outcome, counts: Counter[str], what: str) -> None:
    """Counts how a disturbed work ended, and keeps what it should not have said."""
    counts["done" if done.code == 0 else "refused" if done.one_sentence else "other"] += 1
    if not done.told:
        counts["untold"] += 1
        counts[f"said: {what} exit {done.code} {done.signal}: {done.said[-1500:]}"] += 1


def _standing(work: Work, counts: Counter[str]) -> dict[str, float]:
    try:
        return work.standing()
    except Exception as error:
        counts["torn"] += 1
        counts[f"said: {work.name}: {error}"] += 1
        return {}


def _ends_as_unbroken(work: Work, expected: dict[str, bytes], counts: Counter[str]) -> None:
    """The same command, undisturbed, must end well, and leave what an unbroken one leaves."""
    done = children.run(work.begin())
    if done.code != 0:
        counts["lost"] += 1
        counts[f"said: {work.name} goes not on, exit {done.code} {done.signal}: {done.said[-1500:]}"] += 1
        return
    counts["differing"] += _differing(work.finished(), expected, counts, work.name)


def _differing(found: dict[str, bytes], expected: dict[str, bytes], counts: Counter[str], what: str = "") -> bool:
    names = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
    if names:
        counts[f"said: {what} differs in {', '.join(names)}"] += 1
    return bool(names)


def _measured() -> Path:
    """A folder with a run that is trained and measured, shared."""
    if "path" not in _MEASURED:
        folder = Path(tiny.mkdtemp(dir=tiny.FOLDER))
        work = works.evaluation("vae-vdm", folder)
        done = children.run(work.begin())
        assert done.code == 0, done.said
        _MEASURED["path"] = folder
        _MEASURED["read"] = {name: reader(folder / "run") for name, reader in READERS.items()}
    return _MEASURED["path"]


_MEASURED: dict = {}


def _codes(run: Path) -> bytes:
    opened = runs.load(run, "cpu")
    x = opened.splits().test.batch(torch.arange(24)).x
    return opened.model.encode(x).mean.detach().numpy().tobytes()


READERS: dict[str, Callable[[Path], object]] = {
    "codes": _codes,
    "settings": lambda run: settings_of(run),
    "results": lambda run: {k: v for k, v in records.current(run).items() if v},
    "log": lambda run: journal.read(run),
}


def _read_again(run: Path, file: str) -> Counter[str]:
    """What the readers say of a run, in a child; then training is continued to a larger budget."""
    counts: Counter[str] = Counter()
    for name, reader in READERS.items():
        known = _MEASURED["read"][name]

        def look(reader=reader, known=known) -> int:
            try:
                return 0 if reader(run) == known else 3
            except UserError as error:
                print(f"diffrep: {error}")
                return 2

        done = children.run(look)
        word = {0: "harmless", 2: "detected", 3: "silent"}.get(done.code, "untold")
        word = "log" if (name, word) == ("log", "silent") else word  # its lines have no checksum
        counts[word] += 1
        if word in ("silent", "untold"):
            counts[f"said: {name} after a change of {file}: {word} {done.signal} {done.said[-800:]}"] += 1
    work = works.training("vae-vdm", run.parent, "128ex")
    done = children.run(work.begin())
    if done.one_sentence:
        counts["detected"] += 1
    elif not done.told:
        counts["untold"] += 1
        counts[f"said: continued after a change of {file}: {done.said[-800:]}"] += 1
    else:
        same = _weights(run) == _continued()
        counts["harmless" if same else "silent"] += 1
        if not same:
            counts[f"said: continued after a change of {file}: other weights"] += 1
    return counts


def _weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def _continued() -> bytes:
    """The weights of the measured run, continued to the larger budget."""
    if "continued" not in _MEASURED:
        with _folder() as folder:
            shutil.copytree(_measured(), folder)
            done = children.run(works.training("vae-vdm", folder, "128ex").begin())
            assert done.code == 0, done.said
            _MEASURED["continued"] = _weights(folder / "run")
    return _MEASURED["continued"]


def _lazily(folder: Path) -> Work:
    """Training on pictures that a worker reads."""
    photos = tiny.FOLDER / "photos"
    if not photos.exists():
        photos.mkdir()
        for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)):
            Image.fromarray(pixels).save(photos / f"{i:03d}.png")
    words = ("train", "--data", photos, "--method", "ae", "--out", folder / "run", "--budget", "320ex", *works.SET)
    return Work("train with a worker", folder, (*words, "--set", "train.workers=1"))


def _unbroken_lazily() -> dict[str, bytes]:
    if "lazily" not in _MEASURED:
        with _folder() as folder:
            work = _lazily(folder)
            done = children.run(work.begin())
            assert done.code == 0, done.said
            _MEASURED["lazily"] = work.finished()
    return _MEASURED["lazily"]


def _child_of(parent: int, seconds: float) -> int | None:
    """The first child of a process, once it has one; None where it ends before."""
    path, until = Path(f"/proc/{parent}/task/{parent}/children"), time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            several = path.read_text().split()
        except OSError:
            return None
        if several:
            return int(several[-1])
        time.sleep(0.002)
    return None
