"""Read text files from any machine: byte-order marks, line endings, other encodings, tables with any delimiter.

    read_text("notes.txt")                                                     → "…\\n…"
    read_json("captions.json", unique_keys=True)                               → dictionaries and lists
    read_table("captions.csv", {"image": ("image", "file_name"), "caption": ("caption", "text")})
                                                                               → [(2, ("dog.jpg", "a dog")), …]

Every error names the file and the line. Standard library only.
"""

import codecs
import csv
import io
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared import json_text
from shared.errors import CourseError

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
DELIMITERS = (",", ";", "\t", "|")


def normalize(name: str) -> str:
    """Return a name in Unicode's composed form (NFC); macOS writes "é" as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


def printable(name: object) -> str:
    """Return a text that every terminal and file can hold: bytes of a file name that are not UTF-8 are escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def read_text(file: Path | str, *, advice: str = "") -> str:
    """Return the text of a UTF-8 file, or of a UTF-16 file with a byte-order mark; every line ends with "\\n".

    Raises CourseError, which ends with `advice`, when the file is missing or unreadable or has another encoding.
    """
    file, end = Path(file), f". {advice}" if advice else ""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise CourseError(f"{printable(file)} does not exist{end}") from None
    except OSError as error:
        raise CourseError(f"{printable(file)} cannot be read ({error.strerror}){end}") from error
    try:
        text = data.decode("utf-16" if data.startswith(UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        lines = data[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n") + 1
        raise CourseError(
            f"{printable(file)}, line {lines}: the byte 0x{data[error.start]:02x} is not UTF-8; "
            f"save the file as UTF-8 (it may be Latin-1 or Windows-1252){end}"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise CourseError(f"{printable(file)}, line {line}: a zero byte; expected a text file in UTF-8{end}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(file: Path | str, *, unique_keys: bool = False, advice: str = "") -> Any:
    """Return the content of a JSON file.

    unique_keys  refuse an object in which a key occurs twice; otherwise its last value is used, and the object is a
                 `RepeatedKeys`

    Raises CourseError, which ends with `advice`, as `read_text` does, and when the text is not JSON.
    """
    return parse_json(read_text(file, advice=advice), file, unique_keys=unique_keys, advice=advice)


def parse_json(text: str, location: object, *, unique_keys: bool = False, advice: str = "") -> Any:
    """Return what a JSON text describes. Raises CourseError that names the `location`, as `read_json` does."""
    end = f". {advice}" if advice else ""
    try:
        content = json_text.parse_json(text)
    except json.JSONDecodeError as error:
        raise CourseError(
            f"{printable(location)} cannot be read as JSON "
            f"({error.msg} in line {error.lineno}, at character {error.pos:,} of {len(text):,}){end}"
        ) from error
    except ValueError as error:  # nested without end; an integer of thousands of digits
        raise CourseError(f"{printable(location)} cannot be read as JSON ({error}){end}") from error
    if unique_keys and (name := next(json_text.repeated_keys(content), None)) is not None:
        raise CourseError(f"{printable(location)} has the key {name!r} twice; write it once{end}")
    return content


# ── Tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_table(file: Path | str, columns: Mapping[str, Sequence[str]]) -> list[tuple[int, tuple[str, ...]]]:
    """Return the rows of a table as (line, values), where the line is counted from 1.

    columns  what each value is called, and the words by which a header may name its column, the preferred word first

    The delimiter is a comma, a semicolon, a tab or a vertical bar. With a header the columns are found by their words,
    in any order and among others; without one the file has exactly these columns. Quotes are those of CSV.

    Raises CourseError as `read_text` does, and for a row that does not have these columns, with its line.
    """
    text = read_text(file)
    lines = text.split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    delimiter = None
    if separator := re.fullmatch(r"sep=(.)", lines[first].strip(" ")):  # written by spreadsheets
        delimiter, lines[first], first = separator[1], "", first + 1
    delimiter = delimiter or _find_delimiter(lines[first] if first < len(lines) else "", columns)
    places: list[int] | None = None
    rows: list[tuple[int, tuple[str, ...]]] = []
    reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, skipinitialspace=True, strict=True)
    header_row = True
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if header_row:
                header_row, places = False, _find_columns(row, columns)
                if places is not None:
                    continue
            rows.append((reader.line_num, _select(row, places, columns, f"{printable(file)}, line {reader.line_num}")))
    except csv.Error as error:
        raise CourseError(f"{printable(file)}, line {reader.line_num}: {error}; check the quotes") from error
    return rows


def _find_columns(row: Sequence[str], columns: Mapping[str, Sequence[str]]) -> list[int] | None:
    """Return the place of each column in a header, or None when the row is no header."""
    cells = [re.sub(r"[\s-]+", "_", cell.strip().casefold()) for cell in row]
    matches = [next((cells.index(word) for word in words if word in cells), None) for words in columns.values()]
    places = [place for place in matches if place is not None]
    return places if len(set(places)) == len(columns) else None


def _find_delimiter(line: str, columns: Mapping[str, Sequence[str]]) -> str:
    """Return the delimiter by which the first line is a header, or else the one that occurs first outside quotes."""
    for delimiter in DELIMITERS:
        cells = [cell.strip(' "') for cell in line.split(delimiter)]
        if _find_columns(cells, columns) is not None:
            return delimiter
    unquoted = re.sub(r'"[^"]*"', lambda match: "_" * len(match[0]), line)
    return min((each for each in DELIMITERS if each in unquoted), key=unquoted.index, default=DELIMITERS[0])


def _select(row: list[str], places: list[int] | None, columns: Mapping[str, Sequence[str]], where: str) -> tuple:
    """Return the cells of a row in the order of the columns. Raises CourseError when some are missing."""
    chosen = list(range(len(columns))) if places is None else places
    if len(row) <= max(chosen) or (places is None and len(row) != len(columns)):
        names = " and ".join(columns)
        advice = "; a value that contains the delimiter stands in quotes" if len(row) > len(columns) else ""
        raise CourseError(f"{where}: expected {names}, not {row}{advice}")
    return tuple(row[place].strip() for place in chosen)
