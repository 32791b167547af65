"""Which axis of an array is which: guessed from their lengths, or as the settings say."""

from __future__ import annotations

import numpy as np

from diffrep.data.reading import AXES, Reading
from diffrep.errors import UserError

CHANNELS = {1, 3, 4}  # grey, RGB, RGBA: lengths of an axis that is taken for the channels of a picture
NARROW = 8  # an array whose one axis is this many times longer than the other is a signal
SPATIAL = "dthwl"


def channels_first(values: np.ndarray, name: str, reading: Reading) -> tuple[np.ndarray, Reading]:
    """An array with the axes that its layout names -> (N, C, *spatial), or (N, F); and the reading with the layout.

    A run's reading is applied to arrays of another order where that alone gives the shape of the run.
    """
    if reading.layout is None and reading.applied and reading.shape is not None:
        fits = [layout for layout in POSSIBLE.get(values.ndim, ()) if _shape(values, layout) == reading.shape]
        if not fits:
            shape = "x".join(map(str, reading.shape))
            raise UserError(f"{name} has shape {values.shape}, expected {shape} for each example: reshape it.")
        return _moved(values, fits[0]), reading
    if reading.layout is None:
        guessed, doubt = _guessed(values.shape, name)
        reading = reading.guess("layout", guessed, doubt)
    layout = reading.layout or ""
    if len(layout) != values.ndim:
        axes = ", ".join(AXES.get(letter, "features") for letter in layout)
        raise UserError(
            f"{name} has {values.ndim} axes {values.shape} and data.layout={layout} names {len(layout)} ({axes}): give "
            "a letter for each axis."
        )
    return _moved(values, layout), reading


POSSIBLE = {2: ("nf",), 3: ("nhw", "ncl", "nlc"), 4: ("nchw", "nhwc", "ndhw"), 5: ("ncdhw", "ndhwc", "ndchw")}


def order(layout: str) -> list[int]:
    """Positions of n, c where there is one, and the spatial axes, depth or time before height before width."""
    return [layout.index(letter) for letter in ("n", "c", *SPATIAL, "f") if letter in layout]


def _shape(values: np.ndarray, layout: str) -> tuple[int, ...]:
    lengths = tuple(values.shape[i] for i in order(layout))[1:]
    return lengths if "c" in layout or layout == "nf" else (1, *lengths)


def _moved(values: np.ndarray, layout: str) -> np.ndarray:
    axes = order(layout)
    moved = values if axes == sorted(axes) else values.transpose(axes)
    return moved if "c" in layout or layout == "nf" else moved[:, None]


def _guessed(shape: tuple[int, ...], name: str) -> tuple[str, str]:
    """(layout, a doubt: a sentence where it may be wrong, else empty)."""
    sizes = "x".join(map(str, shape[1:]))

    def doubtful(layout: str, words: str, other: str) -> tuple[str, str]:
        return layout, f"{name} holds {sizes} for each example, taken for {words}: data.layout={other} if it is not."

    if len(shape) == 2:
        return "nf", ""
    if len(shape) == 3:
        a, b = shape[1:]
        if b >= NARROW * a:
            return ("ncl", "") if a <= 4 else doubtful("ncl", f"{a} channels of {b} steps", "nhw or nlc")
        if a >= NARROW * b:
            return doubtful("nlc", f"{a} steps of {b} channels", "nhw or ncl")
        if max(a, b) >= 4 * min(a, b):
            return doubtful("nhw", f"a grey picture of {a}x{b}", "ncl or nlc")
        return "nhw", ""
    if len(shape) == 4:
        a, b, c = shape[1:]
        if c in CHANNELS and a not in CHANNELS:
            return "nhwc", ""
        if a in CHANNELS and c not in CHANNELS:
            return "nchw", ""
        if a == b == c:
            if a in CHANNELS:
                return doubtful("nchw", f"{a} channels of {b}x{c}", "nhwc or ndhw")
            return doubtful("ndhw", f"a volume {sizes} of one channel", "nchw or nhwc")
        if b == c:
            return ("nchw", "") if a < b else doubtful("nchw", f"{a} channels of {b}x{c}", "nhwc or ndhw")
        if a == b or (c < a and c < b):
            return doubtful("nhwc", f"pictures of {a}x{b} with {c} channels", "nchw or ndhw")
        return doubtful("nchw", f"{a} channels of {b}x{c}", "nhwc or ndhw")
    a, b, c, d = shape[1:]
    if d in CHANNELS and a not in CHANNELS:
        return "ndhwc", ""
    if b in CHANNELS and a > 4 and c > b and d > b:
        return doubtful("ndchw", f"{a} frames of {b} channels of {c}x{d}", "ncdhw")
    if a in CHANNELS and d not in CHANNELS:
        return "ncdhw", ""
    return doubtful("ncdhw", f"{a} channels of {b}x{c}x{d}", "ndhwc or ndchw")
