"""Files that a visitor of the explorer may send."""

import io
import zipfile
from functools import cache

import numpy as np
from PIL import Image

from diffrep.pages.explorer import MOST_BYTES


@cache
def no_pictures() -> dict[str, bytes]:
    """Files that are no pictures, or pictures that would fill the memory."""
    archive, png = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("../../etc/passwd", "x")
    Image.new("1", (30_000, 30_000)).save(png, "PNG")
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(whole, "PNG")
    return {
        "empty": b"",
        "zip": archive.getvalue(),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "huge": png.getvalue(),
        "cut off": whole.getvalue()[:-900],
        "many bytes": b"\x89PNG" + bytes(MOST_BYTES),
        "text": b"hello",
    }
