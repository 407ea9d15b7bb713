"""Annotation files in COCO's manner: one JSON object with lists of records, checked as they are read."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shared.errors import CourseError


def read_annotations(file: Path, how_to_get: str) -> dict[str, Any]:
    """The object in a JSON file. Raises CourseError when there is none, or it is cut off; `how_to_get` is then said."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(f"{file} is not there. {how_to_get}") from None
    except json.JSONDecodeError as error:
        raise CourseError(
            f"{file} is no whole JSON ({error.msg} at character {error.pos:,} of {len(error.doc):,}); "
            f"perhaps a download that broke off. {how_to_get}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"{file} cannot be read ({error}). {how_to_get}") from error
    if not isinstance(content, dict):
        raise CourseError(f"{file} holds a JSON {type(content).__name__}; expected an object. {how_to_get}")
    return content


def records(
    content: Mapping[str, Any], file: Path, key: str, fields: Mapping[str, type], *, unique: str | None = None
) -> list[dict[str, Any]]:
    """The list under `key`, each record with all `fields` of their types; `unique` is a field that no two share.

    Raises CourseError that names the file, the record's place in the list and what is wrong with it.
    """
    found = content.get(key)
    if not isinstance(found, list):
        there = ", ".join(map(str, content)) or "nothing"
        raise CourseError(f"{file} has no list {key!r}; it holds {there}. Is it the right file?")
    seen: dict[Any, int] = {}
    for index, record in enumerate(found):
        where = f"{file}: {key}[{index}]"
        if not isinstance(record, dict):
            raise CourseError(f"{where} is a {type(record).__name__}; expected an object with {', '.join(fields)}")
        for name, kind in fields.items():
            # A boolean is an int to Python, and no id to anyone else.
            if not isinstance(record.get(name), kind) or isinstance(record.get(name), bool):
                raise CourseError(f"{where} has {name} = {record.get(name)!r}; expected {_called(kind)}")
        if unique is not None and seen.setdefault(record[unique], index) != index:
            raise CourseError(f"{where} has the {unique} of {key}[{seen[record[unique]]}], {record[unique]!r}")
    return found


def must_be_in(ids: Iterable[Any], known: Mapping[Any, Any], file: Path, what: str) -> None:
    """Raise CourseError when some of `ids` are not `known`; `what` ends the sentence "3 … (the first is 7)"."""
    missing = [each for each in ids if each not in known]
    if missing:
        raise CourseError(f"{file}: {len(missing):,} {what} (the first is {missing[0]})")


def present(files: Mapping[Any, Path], how_to_get: str, *, skip_missing: bool) -> set[Any]:
    """The keys of those images that are there; each folder is read once, for there may be a hundred thousand.

    Raises CourseError when some are not, unless `skip_missing`; and then still when none is.
    """
    listed = {folder: set() for folder in {file.parent for file in files.values()}}
    for folder, names in listed.items():
        if folder.is_dir():
            names.update(path.name for path in folder.iterdir())
    there = {key for key, file in files.items() if file.name in listed[file.parent]}
    missing = [file for key, file in files.items() if key not in there]
    if missing and not (skip_missing and there):
        raise CourseError(
            f"{len(missing):,} of {len(files):,} images are not there, the first is {missing[0]}. {how_to_get}"
            + ("" if not there else " Or use those that are there, with skip_missing=True.")
        )
    return there


def _called(kind: type) -> str:
    return {int: "a whole number", str: "a text", list: "a list", dict: "an object"}[kind]
