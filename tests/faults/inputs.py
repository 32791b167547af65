"""Files as nobody would write them: bytes changed, cut, doubled and spliced, and contents drawn by hypothesis.

Each must be read, or refused in one sentence; nothing may be written, and nothing in it may run.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import signal
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from PIL import Image

from diffrep import config, runs
from diffrep.data import load
from diffrep.errors import UserError
from diffrep.runs import records
from diffrep.studies import plan
from diffrep.training.checkpoints import load_tensors
from faults import children, works

AT_ONCE = 50  # inputs of a trial
SECONDS = 60  # for one input
ROOM = 1500  # megabytes
PICTURES = ("png", "jpg", "gif", "bmp", "webp", "tif", "ppm")
KINDS = (*PICTURES, "parquet", "pictures.parquet", "csv", "toml", "json", "card", "results", "npz", "npy",
         "safetensors", "wav")  # fmt: skip
DRAWN = ("csv", "json", "card", "results", "toml", "npz", "npy", "parquet", "safetensors", "png")
TRAP = "ran"


class Trap:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, place: str):
        self.place = place

    def __reduce__(self) -> tuple:
        return open, (self.place, "w")


@cache
def whole(kind: str) -> bytes:
    """A file of that kind as it should be."""
    rng, file = np.random.default_rng(0), io.BytesIO()
    pixels = rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    if kind in PICTURES:
        name = {"jpg": "JPEG", "tif": "TIFF", "ppm": "PPM"}.get(kind, kind.upper())
        Image.fromarray(pixels[0]).save(file, name)
    elif kind == "parquet":
        columns = {"a": rng.normal(size=30), "b": rng.integers(0, 9, 30), "label": ["u", "v"] * 15}
        pq.write_table(pa.table(columns), file)
    elif kind == "pictures.parquet":
        encoded = [{"bytes": whole("png"), "path": f"{i}.png"} for i in range(9)]
        pq.write_table(pa.table({"image": encoded, "label": [0, 1, 2] * 3}), file)
    elif kind == "csv":
        rows = "\n".join(f"{a:.3f},{b},{'uv'[b % 2]}" for a, b in zip(rng.normal(size=30), range(30), strict=True))
        return f"a,b,label\n{rows}\n".encode()
    elif kind == "toml":
        return works.PLAN.format(data="digits", changes='["train.batch=16", "code.dim=4"]').encode()
    elif kind in ("json", "card", "results", "safetensors"):
        name = {"json": "config.json", "card": "data.json", "results": "metrics.json"}.get(kind, "model.safetensors")
        return (_run() / name).read_bytes()
    elif kind == "npz":
        np.savez(file, x=pixels, y=np.arange(9) % 3)
    elif kind == "npy":
        np.save(file, pixels)
    elif kind == "wav":
        with wave.open(file, "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(rng.integers(-9, 9, 400).astype("<i2").tobytes())
    return file.getvalue()


@cache
def _run() -> Path:
    folder = Path(works.tiny.mkdtemp(dir=works.tiny.FOLDER))
    done = children.run(works.evaluation("ae", folder).begin())
    assert done.code == 0, done.said
    return folder / "run"


def mutated(kind: str, rng: random.Random) -> bytes:
    """A whole file with one to four changes."""
    content = bytearray(whole(kind))
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(content)) if content else 0
        if rng.random() < 0.4:
            at = min(at, rng.randrange(256))  # headers matter most
        size = rng.choice((1, 2, 4, 8, 64))
        change = rng.randrange(7)
        if change == 0:
            content[at : at + 1] = bytes([rng.randrange(256)])
        elif change == 1:
            content[at : at + size] = bytes(rng.randrange(256) for _ in range(size))
        elif change == 2:
            content[at : at + size] = rng.choice((b"\xff", b"\x00", b"\x7f")) * size
        elif change == 3:
            content[at:] = b"" if rng.random() < 0.5 else content[at + size :]
        elif change == 4:
            content[at:at] = content[at : at + size] * rng.choice((1, 2, 100))
        elif change == 5:
            other = whole(rng.choice(KINDS))
            content[at : at + size] = other[: rng.randrange(len(other))]
        else:
            content[at:at] = rng.choice((b"\n", b'"', b"{", b"[", b",", b"\xef\xbb\xbf", b"1e999", b"NaN", b"-", b"\0"))
    return bytes(content)


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["digits", "ae", "auto"]),
)
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@st.composite
def drawn(draw: st.DrawFn, place: str) -> tuple[str, bytes]:
    """A file whose form is right and whose content is anything."""
    kind = draw(st.sampled_from(DRAWN))
    file = io.BytesIO()
    if kind == "csv":
        cell = st.one_of(st.text(max_size=8), st.floats().map(str), st.integers().map(str), st.just(""))
        rows = draw(st.lists(st.lists(cell, max_size=5), max_size=8))
        mark = draw(st.sampled_from([",", ";", "\t", " ", "|"]))
        return kind, "\n".join(mark.join(row) for row in rows).encode("utf-8", "surrogatepass")
    if kind in ("json", "card", "results"):
        facts = json.loads(whole(kind))
        for name in draw(st.lists(st.sampled_from([*facts, "odd"]), min_size=1, max_size=3)):
            facts[name] = draw(VALUES)
        return kind, json.dumps(facts).encode()
    if kind == "toml":
        keys = st.sampled_from(["name", "data", "budget", "seeds", "set", "measure", "runs", "axes", "levels", "odd"])
        scalars = st.integers() | st.booleans() | st.text(max_size=9) | st.lists(st.text(max_size=5), max_size=3)
        lines = draw(st.lists(st.tuples(keys, scalars), max_size=8))
        return kind, "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines).encode()
    if kind in ("npz", "npy"):
        types = nps.scalar_dtypes() | st.just(np.dtype(object)) | nps.unicode_string_dtypes(max_len=4)
        array = draw(nps.arrays(draw(types), nps.array_shapes(min_dims=0, max_dims=6, min_side=0, max_side=5)))
        if array.dtype == object:
            array = np.full(array.shape, Trap(place), object)
        name = draw(st.sampled_from(["x", "y", "data", "a"]))
        np.save(file, array) if kind == "npy" else np.savez(file, **{name: array})
        return kind, file.getvalue()
    if kind == "parquet":
        length = draw(st.integers(0, 6))
        column = st.lists(VALUES, min_size=length, max_size=length)
        columns = draw(st.dictionaries(st.text(max_size=6), column, max_size=4))
        arrays = {}
        for name, values in columns.items():
            try:
                arrays[name] = pa.array(values)
            except (pa.ArrowException, OverflowError, UnicodeError):
                arrays[name] = pa.array([repr(value).encode() for value in values])
        try:
            pq.write_table(pa.table(arrays), file)
        except (pa.ArrowException, UnicodeError):
            return kind, b"PAR1"
        return kind, file.getvalue()
    if kind == "safetensors":
        if draw(st.booleans()):
            return kind, pickle.dumps(Trap(place))
        tensors = {n: np.zeros(draw(st.lists(st.integers(0, 3), max_size=3)), np.float32) for n in "ab"}
        about = draw(st.none() | st.dictionaries(st.sampled_from(["diffrep", "a"]), st.text(max_size=30), max_size=2))
        return kind, safetensors.numpy.save(tensors, metadata=about)
    mode = draw(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"]))
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    Image.new(mode, size).save(file, "PNG")
    return kind, file.getvalue()


def read(kind: str, content: bytes, folder: Path) -> None:
    """The content as a file, read as that kind is. UserError: it is refused."""
    if kind in PICTURES:
        for i in range(3):
            (folder / f"{i}.{kind}").write_bytes(whole(kind))
        (folder / f"odd.{kind}").write_bytes(content)
        load(folder)
        return
    name = {"json": "config.json", "card": "data.json", "results": "metrics.json", "safetensors": "model.safetensors"}
    path = folder / name.get(kind, f"odd.{kind}")
    if path.name in name.values():
        for file in _run().iterdir():
            if file.is_file():
                os.symlink(file, folder / file.name)
        path.unlink()
    path.write_bytes(content)
    if kind == "toml":
        plan.read(path)
        config.load(path)
    elif kind in ("json", "card"):
        runs.load(folder, "cpu")
    elif kind == "results":
        records.current(folder)
        runs.summary.numbers(folder)
    elif kind == "safetensors":
        load_tensors(path)
        runs.load(folder, "cpu")
    else:
        load(path)


def inputs(number: int) -> Counter[str]:
    """Fifty inputs: by changes of bytes where the number is even, drawn by hypothesis where it is odd."""
    for kind in KINDS:
        whole(kind)
    counts: Counter[str] = Counter(trials=1)
    with TemporaryDirectory(prefix="diffrep-fault-") as aside:
        notes, trap = Path(aside) / "notes", Path(aside) / TRAP

        def note(**facts: object) -> None:
            with open(notes, "a") as file:
                file.write(json.dumps(facts) + "\n")

        def work() -> int:
            signal.signal(signal.SIGALRM, _too_long)
            for kind, content in _several(number, str(trap)):
                note(begun=kind)
                _one(kind, content, note)
            return 0

        done = children.run(work, children.starved(ROOM))
        lines = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        for facts in lines:
            if "begun" in facts:
                counts["inputs"] += 1
            elif facts["how"] in ("read", "refused"):
                counts[facts["how"]] += 1
            else:
                counts[facts["how"]] += 1
                counts[f"said: {facts['kind']}: {facts['how']} {facts['why']}"] += 1
        counts["executed"] += trap.exists()
        if done.code != 0:
            counts["untold"] += 1
            counts[f"said: exit {done.code}, signal {done.signal}, at {lines[-1:]}: {done.said[-800:]}"] += 1
    return counts


def _several(number: int, trap: str) -> Iterator[tuple[str, bytes]]:
    if number % 2 == 0:
        rng = random.Random(f"inputs {number}")
        for _ in range(AT_ONCE):
            kind = rng.choice(KINDS)
            yield kind, mutated(kind, rng)
        return
    found: list[tuple[str, bytes]] = []

    @seed(number)
    @settings(max_examples=AT_ONCE, database=None, deadline=None, suppress_health_check=[*HealthCheck],
              phases=[Phase.generate])  # fmt: skip
    @given(drawn(trap))
    def collect(one: tuple[str, bytes]) -> None:
        found.append(one)

    collect()
    yield from found[:AT_ONCE]


def _one(kind: str, content: bytes, note: Callable[..., None]) -> None:
    """Reads an input, and notes how that ended."""
    with TemporaryDirectory(prefix="diffrep-input-") as place:
        folder, why, how = Path(place) / "in", "", "read"
        folder.mkdir()
        signal.alarm(SECONDS)
        try:
            read(kind, content, folder)
        except UserError as error:
            how, why = "refused", str(error)
            if "\n" in why or len(why) > 1500:
                how = "untold"
        except MemoryError as error:
            how, why = "refused", f"memory: {error}"
        except BaseException as error:
            import traceback

            how, why = "untold", "".join(traceback.format_exception(error))[-1200:]
        finally:
            signal.alarm(0)
        before = {f.name for f in _run().iterdir()} | {f"odd.{kind}", *(f"{i}.{kind}" for i in range(3))}
        extra = sorted({f.name for f in folder.rglob("*")} - before)
        if extra:
            how, why = "torn", f"left {extra}"
        note(kind=kind, how=how, why=why)


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"not done after {SECONDS} s")
