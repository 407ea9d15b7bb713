"""Annotation files in COCO's format: one JSON object with lists of records, validated while reading."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import CourseError
from shared.folders import FileIndex, walk_folder
from shared.text_files import read_json

Key = TypeVar("Key")


def read_annotations(file: Path, how_to_get: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises CourseError when the file is missing, truncated or not an object; the message ends with `how_to_get`.
    """
    incomplete = f"The download may be incomplete. {how_to_get}" if file.exists() else how_to_get
    content = read_json(file, advice=incomplete)
    if not isinstance(content, dict):
        raise CourseError(f"{file} holds a JSON {type(content).__name__}; expected an object. {how_to_get}")
    return content


def records(
    content: Mapping[str, Any], file: Path, key: str, fields: Mapping[str, type], *, unique: str | None = None
) -> list[dict[str, Any]]:
    """Return the list under `key`; each record has all `fields` with their types.

    unique  a field whose values must differ between records

    Raises CourseError that names the file, the record's index and the error in it.
    """
    listed = content.get(key)
    if not isinstance(listed, list):
        keys = ", ".join(map(str, content)) or "nothing"
        raise CourseError(f"{file} has no list {key!r}; it holds {keys}. Check that it is the right file.")
    index_of: dict[Any, int] = {}
    for index, record in enumerate(listed):
        where = f"{file}: {key}[{index}]"
        if not isinstance(record, dict):
            raise CourseError(f"{where} is a {type(record).__name__}; expected an object with {', '.join(fields)}")
        for name, kind in fields.items():
            # Python counts a boolean as an int; as an id it is an error.
            if not isinstance(record.get(name), kind) or isinstance(record.get(name), bool):
                raise CourseError(f"{where} has {name} = {record.get(name)!r}; expected {_type_name(kind)}")
        if unique is not None and index_of.setdefault(record[unique], index) != index:
            raise CourseError(f"{where} has the {unique} of {key}[{index_of[record[unique]]}], {record[unique]!r}")
    return listed


def require_ids(ids: Iterable[Any], defined: Mapping[Any, Any], file: Path, problem: str) -> None:
    """Raise CourseError when some `ids` are not `defined`; `problem` completes "3 … (the first is 7)"."""
    missing = [each for each in ids if each not in defined]
    if missing:
        raise CourseError(f"{file}: {len(missing):,} {problem} (the first is {missing[0]})")


def existing_files(names: Mapping[Key, str], folder: Path, how_to_get: str, *, skip_missing: bool) -> dict[Key, Path]:
    """Return the images that exist; `names` has their paths from the folder, as a table of another machine has them.

    Raises CourseError when some are missing, unless `skip_missing` is set, and always when all are missing.
    """
    index = FileIndex(walk_folder(folder)) if folder.is_dir() else None
    matches = {key: None if index is None else index.find(name) for key, name in names.items()}
    existing = {key: folder / path for key, path in matches.items() if path is not None}
    missing = [folder / name for key, name in names.items() if key not in existing]
    if missing and not (skip_missing and existing):
        raise CourseError(
            f"{len(missing):,} of {len(names):,} images are missing, the first is {missing[0]}. {how_to_get}"
            + (" Or use the existing ones with skip_missing=True." if existing else "")
        )
    return existing


def _type_name(kind: type) -> str:
    return {int: "a whole number", str: "a text", list: "a list", dict: "an object"}[kind]
