"""Picture files: header, mode and pixels through Pillow, with errors that name the file."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from diffrep.errors import UserError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
MODES = {"L": (1, np.uint8), "RGB": (3, np.uint8), "RGBA": (4, np.uint8), "I;16": (1, np.uint16), "F": (1, np.float32)}
_STORED_AS = {"1": "L", "L": "L", "LA": "RGBA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA", "I": "I;16", "F": "F"}


def header(encoded: str | bytes, name: str) -> tuple[str, tuple[int, int]]:
    """(mode, (height, width)) without decoding. The mode is one of `MODES`: what the picture holds without loss.

    1-bit becomes grey; grey with alpha becomes RGBA; palettes and other colour spaces become RGB. Pillow gives colour
    with 16 bits a channel as 8 bits, and of an animation the first frame.
    """
    image = _opened(encoded, name)
    return _mode(image), (image.height, image.width)


def decode(encoded: str | bytes, name: str, mode: str) -> np.ndarray:
    """Pixels (C, H, W) in one of `MODES`: uint8, uint16 or float32. UserError where the picture is broken."""
    return read(encoded, name, mode)[2]


def read(encoded: str | bytes, name: str, mode: str) -> tuple[str, tuple[int, int], np.ndarray]:
    """What `header` gives, which is the picture's own, and the pixels (C, H, W) brought to `mode`."""
    image = _opened(encoded, name)
    own = _mode(image)
    size = image.height, image.width
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise _broken(name, str(error)) from error
    if own == mode == "I;16":
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise UserError(f"{name} holds values from {pixels.min()} to {pixels.max()}, expected 16 bit: convert it.")
    else:
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    pixels = pixels.astype(MODES[mode][1], copy=False)
    return own, size, pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def common_mode(modes: Sequence[str], names: Sequence[str]) -> str:
    """The mode that holds every picture: grey beside RGB becomes RGB, beside RGBA RGBA; 8 and 16 bits do not mix."""
    present = set(modes)
    if len(present) == 1:
        return modes[0]
    if present <= {"L", "RGB", "RGBA"}:
        return max(present, key=len)
    other = next(i for i, mode in enumerate(modes) if mode != modes[0])
    words = {"I;16": "16-bit", "F": "floating-point"}
    raise UserError(
        f"{names[0]} is {words.get(modes[0], '8-bit')} and {names[other]} is {words.get(modes[other], '8-bit')}, "
        "expected one depth: convert them all to the same."
    )


def common_size(sizes: Sequence[tuple[int, int]], names: Sequence[str]) -> tuple[int, int]:
    """The (height, width) that all pictures share; UserError that names the first two that differ."""
    for i, size in enumerate(sizes):
        if size != sizes[0]:
            raise UserError(
                f"{names[0]} is {sizes[0][1]}x{sizes[0][0]} and {names[i]} is {size[1]}x{size[0]} pixels, expected one "
                "size: resize or crop them all to the same width and height."
            )
    return sizes[0]


def digest(encoded: str | bytes, limit: int | None) -> bytes:
    """SHA-256 of the size and the first `limit` bytes (None: all) of a picture as it is stored."""
    if isinstance(encoded, bytes):
        size, content = len(encoded), encoded[:limit]
    else:
        with open(encoded, "rb") as file:
            size, content = os.fstat(file.fileno()).st_size, file.read(-1 if limit is None else limit)
    return hashlib.sha256(size.to_bytes(8, "little") + content).digest()


def _opened(encoded: str | bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded)
    except UnidentifiedImageError as error:
        size = len(encoded) if isinstance(encoded, bytes) else os.path.getsize(encoded)
        raise _broken(name, "not a picture" if size else "it is empty") from error
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, Image.DecompressionBombError) as error:
        raise _broken(name, str(error)) from error


def _mode(image: Image.Image) -> str:
    return "I;16" if image.mode.startswith("I;16") else _STORED_AS.get(image.mode, "RGB")


def _broken(name: str, reason: str) -> UserError:
    return UserError(
        f"{name} cannot be read ({reason.rstrip('.')}). Remove it, or pass --skip-bad (in Python skip_bad=True) to go "
        "on without it."
    )
