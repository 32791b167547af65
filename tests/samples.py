"""Small sets of pictures in every layout, and the truth about them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from diffrep.data import Splits

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 6, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)


def whole(splits: Splits) -> torch.Tensor:
    """x of all three splits, one after the other."""
    return torch.cat([part.batch(torch.arange(len(part))).x for part in parts_of(splits)])


def parts_of(splits: Splits):
    return splits.train, splits.valid, splits.test


def centres(levels: np.ndarray, bins: int) -> torch.Tensor:
    """The middle of the k-th of `bins` equal cells of [-1, 1], from the edges of the cells."""
    edges = np.linspace(-1, 1, bins + 1)
    return torch.tensor((edges[levels.astype(int)] + edges[levels.astype(int) + 1]) / 2, dtype=torch.float32)


def same_set(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Do both hold the same rows, in any order?"""
    return sorted(a.flatten(1).tolist()) == sorted(b.flatten(1).tolist())


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def write_folder(root: Path, pictures: np.ndarray, folders: list[str] | None = None) -> Path:
    for i, pixels in enumerate(pictures):
        path = root / (folders[i] if folders else "") / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def write_parquet(path: Path, pictures: np.ndarray, labels: list[int], names: list[str]) -> None:
    """The layout in which hubs keep pictures: {bytes, path} and a ClassLabel, whose names are in the metadata."""
    images = [{"bytes": png(Image.fromarray(p)), "path": f"{path.stem}-{i}.png"} for i, p in enumerate(pictures)]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table({"image": images, "label": labels, "weight": np.arange(len(labels)) / 2})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)
