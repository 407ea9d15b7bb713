"""Tables of captions in the formats in which they come, as (image name, caption) with their place in the file.

captions.txt, captions.csv, metadata.csv     dog.jpg,a dog on the sand           (or ";", tab, "|"; header optional)
Flickr8k.token.txt                           dog.jpg#0 ⇥ a dog on the sand
captions.json                                {"dog.jpg": "a dog on the sand"}    (or a list of several captions)
                                             [{"image": "dog.jpg", "caption": "a dog on the sand"}]
                                             {"images": […], "annotations": […]}  in COCO's format
metadata.jsonl                               {"file_name": "dog.jpg", "text": "a dog on the sand"}  one per line
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.datasets.coco_captions import read_caption_records
from shared.errors import CourseError
from shared.text_files import parse_json, printable, read_json, read_table, read_text

TABLES = ("captions.json", "captions.txt", "captions.csv", "metadata.csv", "metadata.jsonl", "Flickr8k.token.txt")
"""Names of caption files; of several in one folder the first is read."""
COLUMNS: Mapping[str, Sequence[str]] = {
    "an image name": ("image", "file_name", "filename", "image_name", "image_file", "file", "path", "image_path"),
    "a caption": ("caption", "text", "captions", "description", "sentence", "comment"),
}
"""The words by which a header or a JSON record may name the two columns."""


class CaptionRow(NamedTuple):
    """Hold one caption; `where` names its file and line or record, for errors."""

    image: str
    caption: str
    where: str


def find_table(folder: Path) -> Path:
    """Return the caption file of a folder. Raises CourseError when it has none."""
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None:
        raise CourseError(f"{printable(folder)} holds no caption file; expected one of {', '.join(TABLES)}")
    return table


def read_caption_table(table: Path) -> list[CaptionRow]:
    """Return all rows of a caption file, in its order, with spaces around the captions removed.

    Raises CourseError, which names the line or the record, for a file that is not UTF-8 or has another format, and for
    an empty caption.
    """
    name = printable(table)
    if table.suffix == ".json":
        rows = _from_json(table)
    elif table.suffix == ".jsonl":
        lines = [(number, line) for number, line in enumerate(read_text(table).split("\n"), 1) if line.strip()]
        rows = [
            _from_record(parse_json(line, f"{name}, line {number}"), f"{name}, line {number}") for number, line in lines
        ]
    elif ".token" in table.name:
        rows = []
        for number, line in enumerate(read_text(table).split("\n"), 1):
            if line.strip():
                image, tab, caption = line.partition("\t")
                if not tab:
                    raise CourseError(
                        f"{name}, line {number}: expected an image name, a tab and a caption, not {line!r}"
                    )
                rows.append(CaptionRow(image, caption, f"{name}, line {number}"))
    else:
        cells = read_table(table, COLUMNS)
        rows = [CaptionRow(image, caption, f"{name}, line {line}") for line, (image, caption) in cells]
    if not rows:
        raise CourseError(f'{name} holds no captions; expected {{"dog.jpg": "a dog on the sand", …}} or dog.jpg,a dog')
    return [_checked(row) for row in rows]


def _checked(row: CaptionRow) -> CaptionRow:
    try:
        row.caption.encode()
    except UnicodeEncodeError as error:
        raise CourseError(f"{row.where}: the caption has a character that is no text ({error.reason})") from error
    if not row.caption.strip():
        raise CourseError(f"{row.where}: the caption of {row.image!r} is empty; expected a text")
    return row._replace(caption=row.caption.strip())


def _from_json(table: Path) -> list[CaptionRow]:
    content, name = read_json(table, unique_keys=True), printable(table)
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        records = read_caption_records(content, table)
        return [CaptionRow(each.file_name, caption, name) for each in records for caption in each.captions]
    if isinstance(content, list):
        return [_from_record(record, f"{name}, record {number}") for number, record in enumerate(content)]
    if not isinstance(content, dict):
        return []
    rows = []
    for image, captions in content.items():
        for caption in captions if isinstance(captions, list) else [captions]:
            if not isinstance(caption, str):
                raise CourseError(f"{name}: the caption of {image!r} is {caption!r}; expected a text")
            rows.append(CaptionRow(image, caption, name))
    return rows


def _from_record(record: Any, where: str) -> CaptionRow:
    values = []
    for words in COLUMNS.values():
        matches = [record[word] for word in words if word in record] if isinstance(record, dict) else []
        values.append(matches[0] if matches else None)
    image, caption = values
    if not isinstance(image, str) or not isinstance(caption, str):
        raise CourseError(f'{where}: expected {{"image": …, "caption": …}}, not {record!r}')
    return CaptionRow(image, caption, where)
