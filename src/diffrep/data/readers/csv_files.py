"""Tables as text: delimiter, decimal sign, header and encoding, guessed or as the settings say."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from diffrep.data.reading import Reading
from diffrep.errors import UserError, reason_of

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
TEXTS = (*SUFFIXES, ".txt", ".txt.gz")  # tables too, where a file is named; in a folder .txt is a note to people
DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "space": " ", "\\t": "\t"}
PEEK = 50  # lines from which delimiter and header are guessed
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?|nan|inf|-inf|na|null|", re.IGNORECASE)
COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")


def is_csv(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def is_text(path: Path) -> bool:
    return path.name.lower().endswith(TEXTS)


def read_csv(file: Path, reading: Reading, as_words: Sequence[str] = ()) -> tuple[pa.Table, Reading]:
    """A file of text -> its table, and the reading with the guesses. Lines that begin with # are comments.

    as_words: columns that are kept as they are written, such as 0001, whatever their case.
    """
    text, reading = _text(file, reading)
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UserError(f"{file} cannot be read as CSV (it is empty): check its columns.")
    usual = "\t" if ".tsv" in file.name.lower() else ","
    own = reading.delimiter if reading.guesses or not reading.applied else None
    delimiter = DELIMITERS.get(own, own) if own else _delimiter(lines[:PEEK], usual, is_csv(file))
    if len(delimiter) != 1:
        raise UserError(f"data.delimiter={delimiter} is no delimiter, expected one character, tab, semicolon or space.")
    try:
        rows = list(csv.reader(lines[:PEEK], delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{file} cannot be read as CSV ({error}): check its columns.") from error
    body = rows[1:] or rows
    decimal = "," if delimiter != "," and any(COMMA.fullmatch(cell.strip()) for row in body for cell in row) else "."
    if (delimiter != usual or not is_csv(file)) and not reading.applied:
        reading = reading.guess("delimiter", {"\t": "tab", " ": "space"}.get(delimiter, delimiter))
    if decimal != "." and not reading.applied:
        reading = reading.guess("decimal", decimal)
    header = reading.header or ("yes" if _has_header(rows) else "no")
    if header == "no":
        doubt = (
            f"The first line of {file} holds numbers, so it was read as a row and its columns are named column1,"
            " column2, ...: data.header=yes if they are names."
        )
        reading = reading.guess("header", header, doubt)
    names = [f"column{i + 1}" for i in range(len(rows[0]))] if header == "no" else _unique(rows[0])
    try:
        table = pa.csv.read_csv(
            io.BytesIO("\n".join(lines).encode()),
            read_options=pa.csv.ReadOptions(column_names=names, skip_rows=0 if header == "no" else 1),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter),
            convert_options=pa.csv.ConvertOptions(
                decimal_point=decimal,
                strings_can_be_null=False,
                column_types={name: pa.string() for name in names if name.lower() in as_words},
            ),
        )
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as CSV ({reason_of(error)}): check its columns.") from error
    return table, reading


def _text(file: Path, reading: Reading) -> tuple[str, Reading]:
    try:
        content = file.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read ({reason_of(error)}): check the file.") from error
    try:
        return content.decode("utf-8-sig"), reading
    except UnicodeDecodeError:
        note = f"{file} is not in UTF-8 and was read as Latin-1: save it as UTF-8 if its letters are wrong."
        return content.decode("latin-1"), reading.noted(note)


def _delimiter(lines: list[str], usual: str, csv_by_name: bool) -> str:
    """The sign that cuts all lines into the same number of cells, two at least; the usual one where none does.

    A space may be one in a file that does not call itself .csv or .tsv.
    """
    best, most = usual, 1
    for sign in dict.fromkeys((usual, ",", ";", "\t", "|", *(() if csv_by_name else (" ",)))):
        try:
            widths = {len(row) for row in csv.reader(lines, delimiter=sign)}
        except csv.Error:
            continue
        if len(widths) == 1 and (width := widths.pop()) > 1:
            plain = sign != "," or ";" not in lines[0]  # 1,5;2,5 is cut by both
            if most == 1 or (width > most and plain):
                best, most = sign, width
    if best == "," and all(";" in line for line in lines):
        return ";"
    return best


def _has_header(rows: list[list[str]]) -> bool:
    """Does the first line hold names? It does not where a cell is a number, unless the cells count 0, 1, 2, ..."""
    numbers = [cell.strip() for cell in rows[0] if cell.strip() and NUMBER.fullmatch(cell.strip())]
    if not numbers or len(rows) == 1:
        return True
    return numbers in ([str(i) for i in range(len(numbers))], [str(i + 1) for i in range(len(numbers))])


def _unique(names: list[str]) -> list[str]:
    """Names of columns as they are, ".1" added to repeated ones; an empty name is that of an index of pandas."""
    unique: list[str] = []
    for i, name in enumerate(names):
        name = name.strip() or f"Unnamed: {i}"
        while name in unique:
            name += ".1"
        unique.append(name)
    return unique
