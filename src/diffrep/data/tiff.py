"""TIFF files that Pillow cannot read whole: several pages, bands, or 16 bits a channel; through tifffile (extra)."""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from diffrep.errors import UserError, reason_of

BITS, COMPRESSION, SAMPLES, EXTRA, FORMAT = 258, 259, 277, 338, 339  # tags of TIFF
DENSEST = {1: 1, 5: 1400, 8: 1100, 32946: 1100}  # bytes that a byte may become: stored plainly, by LZW, by deflate
PAGE = 18  # bytes of the smallest page
KINDS = {"uint8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"}


def is_whole(image: Image.Image) -> bool:
    """Does Pillow read all that this opened TIFF holds? Not where its tags are broken: tifffile then says how."""
    assert isinstance(image, TiffImageFile) and image.fp is not None, f"a TIFF was expected, and is {image.format}"
    try:
        tags, several = image.tag_v2, image.n_frames > 1
        samples, bits = tags.get(SAMPLES, 1), max(_numbers(tags.get(BITS, 1)))
        kind = max(_numbers(tags.get(FORMAT, 1)))
        alpha = samples == 4 and _numbers(tags.get(EXTRA, 0)) in ((1,), (2,))
        stated = image.width * image.height * samples * bits // 8
        cut = tags.get(COMPRESSION, 1) == 1 and stated > image.fp.seek(0, io.SEEK_END)
    except Exception:  # Pillow raises many kinds
        return False
    if several or cut:
        return False
    if samples == 1:
        return bits <= 8 or (bits == 16 and kind == 1) or (bits == 32 and kind == 3)
    return bits == 8 and (samples == 3 or alpha)


def pages(path: str, name: str) -> np.ndarray | None:
    """(N, C, H, W) of a file with several pages, each an example; None of any other, a broken one too."""
    try:
        with Image.open(path) as image:
            several = getattr(image, "n_frames", 1) > 1
    except Exception:  # Pillow raises many kinds; the reader of pictures says what is broken
        several = False
    if not several:
        return None
    values = read(path, name)
    return np.moveaxis(values, 1, 0) if values.ndim == 4 else values[:, None]


def read(encoded: str | bytes, name: str) -> np.ndarray:
    """(C, H, W), or (C, D, H, W) where pages are depth. UserError: what tifffile cannot read, no tifffile."""
    try:
        import tifffile
    except ImportError as error:
        raise UserError(
            f"{name} is a TIFF with several pages, bands or 16 bits a channel, which needs more: pip install"
            " 'diffrep[tiff]', or save it as .npy."
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with tifffile.TiffFile(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as file:
                if _circular(file.pages, file.filehandle.size):
                    raise ValueError("its pages lead back to an earlier one")
                series, first = file.series[0], file.pages.first
                bits = np.mean(_numbers(first.bitspersample))  # 12 and fewer are stored side by side
                held = DENSEST.get(first.compression, math.inf) * file.filehandle.size
                if series.size * bits / 8 > held and not series.is_multifile:
                    raise ValueError("it states more pixels than it holds")
                values, axes = series.asarray(), series.axes
                several = len(file.series) > 1
    except Exception as error:  # tifffile raises many kinds, and those of its codecs
        raise UserError(
            f"{name} cannot be read ({reason_of(error)}): save it uncompressed, or as .npy. --skip-bad goes on"
            " without it."
        ) from error
    if several:
        raise UserError(f"{name} holds pages of different sizes, expected one: save them as files of their own.")
    if not values.size:
        raise UserError(f"{name} cannot be read (it states a side of 0 pixels): save it anew.")
    if len(axes) != values.ndim:
        raise UserError(f"{name} cannot be read (its pages have not the axes that it states): save it anew.")
    keep = [i for i, (axis, length) in enumerate(zip(axes, values.shape, strict=True)) if length > 1 or axis in "YX"]
    values, axes = values.reshape([values.shape[i] for i in keep]), "".join(axes[i] for i in keep)
    channels = [i for i, axis in enumerate(axes) if axis in "SC"]
    depth = [i for i, axis in enumerate(axes) if axis not in "SCYX"]
    if len(channels) > 1 or len(depth) > 1 or values.dtype.name not in KINDS or "Y" not in axes or "X" not in axes:
        raise UserError(
            f"{name} has the axes {axes} of {values.dtype}, expected pages or channels of pictures: save it as .npy."
        )
    values = values.transpose([*channels, *depth, axes.index("Y"), axes.index("X")])
    return values if channels else values[None]


def _circular(pages: Any, size: int) -> bool:
    """Do the pages of a file of `size` bytes never end? tifffile would follow them for hours."""
    try:
        pages[size // PAGE + 1]
    except IndexError:
        return False
    return True


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (int(value),)
