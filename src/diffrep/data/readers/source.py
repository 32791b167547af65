"""Sources: a name, a folder, a file or an object of Python -> `Raw`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from diffrep.data import tiff
from diffrep.data.albums import of_pictures
from diffrep.data.factors import digits_factors
from diffrep.data.pictures import SUFFIXES
from diffrep.data.raw import Raw, keep
from diffrep.data.readers.arrays import read_arrays
from diffrep.data.readers.cells import is_cells, of_cells, read_h5ad
from diffrep.data.readers.containers import path_and_inner, read_container
from diffrep.data.readers.csv_files import is_text
from diffrep.data.readers.folders import read_folder
from diffrep.data.readers.hub import read_hub
from diffrep.data.readers.objects import of_object
from diffrep.data.readers.recordings import read_recording
from diffrep.data.readers.tables import read_csv, read_parquet
from diffrep.data.reading import Reading
from diffrep.data.streams.source import PREFIX, read_stream
from diffrep.data.values import of_array
from diffrep.errors import UserError, unknown


def read(source: object, reading: Reading, skip_bad: bool) -> tuple[str, Raw]:
    """(name, data) of any source that `diffrep.data.load` takes."""
    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        place = str(path.resolve()) if path.exists() else ""
        return str(source), _read_name(str(source), replace(reading, source=str(source), place=place), skip_bad)
    reading = replace(reading, source="array", place="")
    return "array", of_cells(source, "the cells", reading) if is_cells(source) else of_object(source, reading, skip_bad)


def _read_name(name: str, reading: Reading, skip_bad: bool) -> Raw:
    if name.startswith(PREFIX):
        return read_stream(name, reading, skip_bad)
    path, container = Path(name).expanduser(), path_and_inner(name)
    if container is not None:
        return read_container(*container, _without_dialect(reading, name))
    if path.is_dir():
        return read_folder(path, KINDS, _without_dialect(reading, str(path)), skip_bad)
    if path.is_file():
        suffix = path.suffix.lower()
        if is_text(path):
            return read_csv(path, reading)
        reading = _without_dialect(reading, name)
        if suffix in FORMATS:
            return FORMATS[suffix](path, reading, skip_bad)
        whole = reading.applied and len(reading.shape or ()) > 3  # a run of volumes takes the pages for depth
        if suffix in STACKS and not whole and (pages := tiff.pages(str(path), name)) is not None:
            made, reading = of_array(pages, name, reading.guess("layout", "nchw"))
            return Raw(made, reading)
        if suffix in SUFFIXES:
            values, kept, reading = of_pictures([str(path)], [name], skip_bad, reading)
            return keep(Raw(values, reading, ids=[path.name]), kept, 1)
        raise UserError(f"{name} is a {suffix or 'nameless'} file, expected {KINDS}.")
    if name in INSIDE:
        if reading.label is not None and not reading.applied:
            raise UserError(f"{name} has labels of its own and no column {reading.label!r}: leave label_column out.")
        return INSIDE[name](reading)
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and not path.suffix and not path.parent.exists():
        return read_hub(name, reading, skip_bad)
    if get_close_matches(name.lower(), INSIDE, cutoff=0.7):
        raise unknown("data set", name, INSIDE, hint=f"Otherwise give {KINDS}.")
    raise UserError(
        f"there is no file or folder {name!r}: give {' or '.join(INSIDE)}, {KINDS}, or a hub name such as ylecun/mnist."
    )


def _without_dialect(reading: Reading, name: str) -> Reading:
    """The reading; UserError where a header or a delimiter is set and the source is no text."""
    if reading.applied or Path(name).is_dir():
        return reading
    for setting, value in (("header", reading.header), ("delimiter", reading.delimiter)):
        if value is not None:
            raise UserError(f"data.{setting} is for .csv, .tsv and .txt files and {name} is none: leave it out.")
    return reading


def _digits(reading: Reading) -> Raw:
    """1,797 handwritten digits of 8 x 8 with grey levels 0 to 16, inside scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    names = [str(k) for k in range(10)]
    values, reading = of_array(digits.images, "digits", replace(reading, layout="nhw"), bins=17)
    return Raw(values, replace(reading, label="class"), labels=digits.target.astype(object), label_names=names)


FORMATS: dict[str, Callable[[Path, Reading, bool], Raw]] = {
    ".parquet": lambda path, reading, skip_bad: read_parquet([path], str(path), None, reading, skip_bad),
    ".npy": lambda path, reading, skip_bad: read_arrays(path, reading),
    ".npz": lambda path, reading, skip_bad: read_arrays(path, reading),
    ".h5ad": read_h5ad,
    ".wav": read_recording,
    ".nii": read_recording,
    ".gz": read_recording,
}  # suffix -> its reader; pictures and text have readers of their own
INSIDE: dict[str, Callable[[Reading], Raw]] = {"digits": _digits, "digits-factors": digits_factors}  # no file needed
STACKS = (".tif", ".tiff")  # one file may hold many examples
KINDS = (
    "a folder of pictures, Parquet files or recordings, or a picture, .parquet, .npy, .npz, .h5, .zarr, .h5ad, .wav,"
    " .nii, .csv, .tsv or .txt file"
)
