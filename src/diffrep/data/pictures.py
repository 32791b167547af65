"""Picture files: header, form and pixels through Pillow, with errors that name the file."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diffrep.data import tiff
from diffrep.errors import UserError

SUFFIXES = {
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".webp",
    ".avif",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
}
UNREAD = {
    ".heic",
    ".heif",
    ".svg",
    ".psd",
    ".dcm",
    ".nef",
    ".cr2",
    ".dng",
    ".jp2",
    ".jxl",
    ".tga",
}  # noted as unread
MODES = {"L": (1, np.uint8), "RGB": (3, np.uint8), "RGBA": (4, np.uint8), "I;16": (1, np.uint16), "F": (1, np.float32)}
BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, KeyError)  # what Pillow raises at a broken file
_STORED_AS = {"1": "L", "L": "L", "LA": "RGBA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA", "I": "I;16", "F": "F"}
FORMATS = {b"\x89PNG": ("PNG",)}  # by the first bytes: Pillow then asks no other format, which saves a tenth for 28x28
ORIENTATION = 0x0112  # EXIF's tag; from 5 on width and height change places
WITH_EXIF = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # where Pillow looks for it in a JPEG

Size = tuple[int, ...]  # (height, width), or (depth, height, width)


def form(mode: str) -> tuple[int, np.dtype]:
    """(channels, type) of a mode: one of `MODES`, or a text such as "5 uint16" for a TIFF that Pillow does not read."""
    if mode in MODES:
        return MODES[mode][0], np.dtype(MODES[mode][1])
    channels, kind = mode.split()
    return int(channels), np.dtype(kind)


def header(encoded: str | bytes, name: str, upright: bool = True, size: Size | None = None) -> tuple[str, Size]:
    """(mode, size) without decoding. The mode is one that `form` knows: what the picture holds without loss.

    1-bit becomes grey; grey or a palette with alpha RGBA; palettes and other colour spaces become RGB. Of an animation
    the first frame is read. upright: turned as its EXIF tag says. size: (height, width) that it is resized to.
    """
    with quietly():
        image = _opened(encoded, name)
    if image is None:
        values = tiff.read(encoded, name)
        return f"{len(values)} {values.dtype.name}", (values.shape[1:] if size is None else size)
    height, width = (image.width, image.height) if upright and _turned(image) else (image.height, image.width)
    return _mode(image, name), (size or (height, width))


def decode(
    encoded: str | bytes, name: str, mode: str, upright: bool = True, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Pixels (C, H, W) in a mode: uint8, uint16 or float32. UserError where the picture is broken."""
    with quietly():
        return read(encoded, name, mode, upright, size)[2]


def read(
    encoded: str | bytes, name: str, mode: str, upright: bool = True, size: tuple[int, int] | None = None
) -> tuple[str, Size, np.ndarray]:
    """Mode and size of the picture itself, as `header` gives them, and its pixels (C, *size) converted to `mode`.

    size: (height, width) that pictures are resized to: the largest centred box of that shape, averaged over areas.
    """
    image = _opened(encoded, name)
    if image is None:
        pixels = tiff.read(encoded, name)
        own = f"{len(pixels)} {pixels.dtype.name}"
        if size is not None:
            raise UserError(f"{name} holds bands or pages, which data.size cannot resize: leave it out.")
        return own, pixels.shape[1:], pixels
    own = _mode(image, name)
    try:
        image.load()
    except (*BROKEN, Image.DecompressionBombError) as error:
        raise _broken(name, str(error)) from error
    if upright and _turned(image, load=True):
        image = ImageOps.exif_transpose(image)
    if own == mode == "I;16":
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise UserError(f"{name} holds values from {pixels.min()} to {pixels.max()}, expected 16 bit: convert it.")
    elif mode in MODES:
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    else:
        raise UserError(f"{name} is {own} and the others are {mode}, expected one form: convert them all to the same.")
    pixels = pixels.astype(MODES[mode][1], copy=False)
    if size is not None:
        pixels = _sized(pixels, size)
    return own, pixels.shape[:2], pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def frames(encoded: str | bytes, name: str) -> int:
    """How many frames an animation has; 1 for a picture."""
    with quietly():
        image = _opened(encoded, name)
    try:
        return 1 if image is None else getattr(image, "n_frames", 1)
    except BROKEN as error:  # a later frame is broken
        raise _broken(name, str(error)) from error


def common_mode(modes: Sequence[str], names: Sequence[str]) -> str:
    """The mode that holds every picture: grey beside RGB becomes RGB, beside RGBA RGBA; 8 and 16 bits do not mix."""
    present = set(modes)
    if len(present) == 1:
        return modes[0]
    if present <= {"L", "RGB", "RGBA"}:
        return max(present, key=len)
    other = next(i for i, mode in enumerate(modes) if mode != modes[0])
    words = {"I;16": "16-bit", "F": "floating-point", "L": "8-bit", "RGB": "8-bit", "RGBA": "8-bit"}
    raise UserError(
        f"{names[0]} is {words.get(modes[0], modes[0])} and {names[other]} is {words.get(modes[other], modes[other])}, "
        "expected one depth: convert them all to the same."
    )


def common_size(sizes: Sequence[Size], names: Sequence[str]) -> Size:
    """The size that all pictures share; UserError that names the first two that differ."""
    for i, size in enumerate(sizes):
        if size != sizes[0]:
            first, second = ("x".join(map(str, reversed(one))) for one in (sizes[0], size))
            raise UserError(
                f"{names[0]} is {first} and {names[i]} is {second} pixels, expected one size: "
                f"data.size={min(sizes[0][-2:])} crops and resizes them all, or resize them yourself."
            )
    return sizes[0]


def quietly() -> AbstractContextManager[object]:
    """Without Pillow's warnings, of odd tags. The filters are those of the whole process, so a thread leaves them."""
    if threading.current_thread() is not threading.main_thread():
        return nullcontext()
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def stored(encoded: str | bytes, name: str) -> bytes:
    """The picture as it is stored, in memory; UserError where its file cannot be read."""
    if isinstance(encoded, bytes):
        return encoded
    try:
        with open(encoded, "rb") as file:
            return file.read()
    except OSError as error:
        raise _broken(name, str(error)) from error


def digest(encoded: str | bytes, limit: int | None) -> bytes:
    """SHA-256 of the size and the first `limit` bytes (None: all) of a picture as it is stored."""
    if isinstance(encoded, bytes):
        size, content = len(encoded), encoded[:limit]
    else:
        with open(encoded, "rb") as file:
            size, content = os.fstat(file.fileno()).st_size, file.read(-1 if limit is None else limit)
    return hashlib.sha256(size.to_bytes(8, "little") + content).digest()


def _opened(encoded: str | bytes, name: str) -> Image.Image | None:
    """A picture whose pixels are still to be decoded; None for a TIFF that Pillow does not read whole."""
    try:
        if isinstance(encoded, bytes):
            image = Image.open(io.BytesIO(encoded), formats=FORMATS.get(encoded[:4]))
        else:
            image = Image.open(encoded)
    except UnidentifiedImageError as error:
        if _is_tiff(encoded):
            return None
        size = len(encoded) if isinstance(encoded, bytes) else os.path.getsize(encoded)
        raise _broken(name, "not a picture" if size else "it is empty") from error
    except (*BROKEN, Image.DecompressionBombError) as error:
        if _is_tiff(encoded) and not isinstance(error, OSError):
            return None
        raise _broken(name, str(error)) from error
    return None if image.format == "TIFF" and not tiff.is_whole(image) else image


def _is_tiff(encoded: str | bytes) -> bool:
    if isinstance(encoded, bytes):
        return encoded[:4] in (b"II*\0", b"MM\0*")
    with open(encoded, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*")


def _mode(image: Image.Image, name: str) -> str:
    if (
        image.mode in ("RGB", "RGBA", "LA")
        and image.format == "PNG"
        and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    ):
        raise UserError(
            f"{name} has 16 bits a channel in colour, of which 8 would be lost: save it as TIFF or .npy, or as 8 bit."
        )
    if image.mode == "P" and "transparency" in image.info:
        return "RGBA"
    return "I;16" if image.mode.startswith("I;16") else _STORED_AS.get(image.mode, "RGB")


def _turned(image: Image.Image, load: bool = False) -> bool:
    """Does its EXIF tag turn it? load: in any way; else: so that width and height change places.

    A PNG whose tag is not in front of its pixels is not decoded to look for it.
    """
    if image.format in ("PNG", "BMP", "GIF", "PPM") and "exif" not in image.info:
        return False
    if image.format == "JPEG" and not WITH_EXIF & image.info.keys():
        return False
    tag = image.getexif().get(ORIENTATION, 1)
    return tag > 1 if load else 5 <= tag <= 8


def _sized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) or (H, W, C) -> `size`: the largest centred box of that shape, resized by averages over areas."""
    height, width = pixels.shape[:2]
    scale = min(height / size[0], width / size[1])
    tall, wide = size[0] * scale, size[1] * scale
    top, left = (height - tall) / 2, (width - wide) / 2
    how = Image.Resampling.BOX if scale >= 1 else Image.Resampling.BILINEAR

    def one(plane: np.ndarray) -> np.ndarray:
        moved = Image.fromarray(plane.astype(np.float32)).resize(
            (size[1], size[0]), how, box=(left, top, left + wide, top + tall)
        )
        values = np.asarray(moved)
        return (np.rint(values) if pixels.dtype.kind in "iu" else values).astype(pixels.dtype)

    return one(pixels) if pixels.ndim == 2 else np.stack([one(pixels[..., c]) for c in range(pixels.shape[2])], -1)


def _broken(name: str, reason: str) -> UserError:
    return UserError(
        f"{name} cannot be read ({reason.rstrip('.')}). Remove it, or pass --skip-bad (in Python skip_bad=True) to go "
        "on without it."
    )
