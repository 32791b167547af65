"""Files as facts that a lock keeps (`tests/locked.py`): tables, pictures, arrays, pages, logs, weights."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from diffrep.config import load
from diffrep.runs.summary import changed
from diffrep.training.checkpoints import load_tensors
from locked import of_result, seen, seen_parts

NUMBERS = r"\d[\d,]*(?:\.\d+)?"
OF_THE_MOMENT = [  # what another run of the same command says otherwise
    (re.compile(rf"{NUMBERS} examples/s"), "# examples/s"),
    (re.compile(rf"\b{NUMBERS}(?= ?(?:s|min|h|ms|MB|MiB|KB|GiB|seconds|minutes)\b)"), "#"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DATE"),
    (re.compile(r"\b\d+\.\d+\.\d+(?:[.+]\w+)*\b"), "VERSION"),
    (re.compile(r"\b(?=\w*[a-f])(?=\w*\d)[0-9a-f]{7,64}\b(?:-dirty)?"), "HASH"),
]
SKIPPED = ("timings.jsonl", "run.lock", ".lock")
LATER = re.compile(r"/runs/|^runs/")  # the runs of a study, of which its rows tell


def plainly(text: str, folder: Path | None = None) -> list[str]:
    """Lines without what is of the moment, of the machine, and of the folder."""
    if folder is not None:
        text = text.replace(str(folder), "FOLDER")
    for pattern, word in OF_THE_MOMENT:
        text = pattern.sub(word, text)
    return [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]


def of_files(folder: Path, before: Collection[Path] = ()) -> dict[str, Any]:
    """Each file below a folder that was not there before: what a reader of it finds."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in SKIPPED]
    named = {str(path.relative_to(folder)): path for path in paths if path not in before}
    return {name: of_file(path, folder) for name, path in named.items() if not LATER.search(name)}


def of_file(path: Path, root: Path) -> Any:
    kind = path.suffix.lower()
    if path.name == "config.json":
        return changed(load(path))
    if kind == ".json":
        return plain_leaves(json.loads(path.read_text()), root)
    if kind == ".jsonl":
        return [plain_leaves(json.loads(line), root) for line in path.read_text().splitlines()]
    if kind == ".npy":
        return of_array(np.load(path))
    if kind == ".npz":
        return {name: of_array(array) for name, array in np.load(path).items()}
    if kind == ".parquet":
        return of_table(pq.read_table(path))
    if kind == ".png":
        return of_picture(path.read_bytes())
    if kind == ".html":
        return of_page(path.read_text(), root)
    if kind == ".safetensors":
        tensors, about = load_tensors(path)
        kept = {name: value for name, value in about.items() if len(str(value)) < 40 and name != "checksum"}
        return {"weights": seen_parts(tensors), "about": of_result(kept)}
    if kind in (".csv", ".md", ".tex", ".txt", ".toml"):
        return plainly(path.read_text(), root)
    return "a file"


def plain_leaves(content: Any, root: Path) -> dict[str, Any]:
    """The leaves of a result; its texts plainly."""
    return {
        place: "\n".join(plainly(value, root)) if isinstance(value, str) else value
        for place, value in of_result(content).items()
    }


def of_array(array: np.ndarray) -> str:
    if array.dtype.kind in "biuf":
        return seen(torch.from_numpy(array.astype(np.float64))) + f" {array.dtype}"
    return str(array.tolist())


def of_table(table: pa.Table) -> dict[str, str]:
    """Each column, with its type."""
    columns: dict[str, str] = {}
    for name in table.column_names:
        column = table.column(name)
        words = str(column.type).removeprefix("large_")
        if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
            columns[name] = f"{words}: {seen(torch.tensor(column.to_pylist()))}"
        elif pa.types.is_floating(column.type):
            columns[name] = f"{words}: {seen(torch.from_numpy(column.to_numpy().astype(np.float64)))}"
        elif pa.types.is_timestamp(column.type):
            days = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64()).to_numpy() / 86_400
            columns[name] = f"days: {seen(torch.from_numpy(days))}"
        else:
            columns[name] = "\n".join(plainly(f"{words}: {column.to_pylist()}"))
    return columns


def of_picture(content: bytes) -> str:
    """The pixels; of what Matplotlib drew, whose letters differ by its version, the size alone."""
    picture = Image.open(io.BytesIO(content))
    if "matplotlib" in str(picture.info.get("Software", "")).lower():
        return f"drawn {picture.size}"
    pixels = np.asarray(picture)
    return f"{picture.mode} {seen(torch.from_numpy(pixels.astype(np.float64) / 255))}"


def of_page(text: str, root: Path) -> dict[str, Any]:
    """What a reader sees: words, descriptions of charts and their titles, lines and shapes, pictures."""
    pictures = [
        of_picture(base64.b64decode(one)) for one in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)
    ]
    text = re.sub(r"data:image/[^\"')]+", "", text)
    labels = [html.unescape(one) for one in re.findall(r'(?:aria-label|alt|title)="([^"]*)"', text)]
    drawn = re.findall(r'\b(?:d|points|x|y|x1|y1|x2|y2|cx|cy|r|width|height|transform)="([^"]*)"', text)
    numbers = [float(one) for each in drawn for one in re.findall(r"-?\d+\.?\d*", each)]
    body = re.sub(r"<(style|script)\b.*?</\1>", " ", text, flags=re.DOTALL)
    words = plainly(html.unescape(re.sub(r"<[^>]+>", "\n", body)), root)
    return {
        "words": words,
        "labels": plainly("\n".join(labels), root),
        "drawn": seen(torch.tensor(numbers, dtype=torch.float64) / 100),
        "pictures": pictures,
    }
