"""Parse JSON into frozen dataclasses and back; every error names its location: `stages[1].steps`."""

import json
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from shared.json_text import RepeatedKeys, has_lone_surrogate, parse_json

T = TypeVar("T")
TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}
UNIONS = (UnionType, Union)  # a union with Literal has the second origin


class JsonErrors(ValueError):
    """All errors of a JSON text, one per line."""


def parse(expected: type[T], text: str) -> T:
    """Return the dataclass that a JSON text describes.

    Raises JsonErrors, which names every key that is unknown, missing, duplicate, of the wrong type or out of range; and
    ValueError when the text is not JSON.
    """
    errors: list[str] = []
    content = parse_json(text)
    try:
        result = _parse_value(expected, content, "", errors)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if errors:
        raise JsonErrors("\n".join(errors))
    return result


def to_json(value: Any) -> str:
    """Return the JSON text of a dataclass that `parse` reads."""
    return json.dumps(asdict(value), indent=2, ensure_ascii=False) + "\n"


def _parse_value(expected: Any, value: Any, location: str, errors: list[str]) -> Any:
    """Return `value` as the expected type; for a wrong one append to `errors` and return None."""
    if is_dataclass(expected):
        return _parse_object(expected, value, location, errors)
    if get_origin(expected) is tuple:
        if not isinstance(value, list):
            return _report(location, value, f"a list of {_describe(get_args(expected)[0])}", errors)
        element = get_args(expected)[0]
        return tuple(_parse_value(element, each, f"{location}[{at}]", errors) for at, each in enumerate(value))
    if get_origin(expected) in UNIONS:
        others = [choice for choice in get_args(expected) if choice is not NoneType]
        if value is None and NoneType in get_args(expected):
            return None
        return _parse_value(others[0], value, location, errors)
    if get_origin(expected) is Literal:
        fits = value in get_args(expected)
    elif expected is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    elif expected is str:
        fits = isinstance(value, str) and not has_lone_surrogate(value)
    else:  # in Python bool is a subclass of int, in JSON true is no number
        fits = type(value) is expected
    return value if fits else _report(location, value, _describe(expected), errors)


def _parse_object(expected: Any, value: Any, location: str, errors: list[str]) -> Any:
    if not isinstance(value, Mapping):
        return _report(location, value, _describe(expected), errors)
    types, prefix = get_type_hints(expected), f"{location}." if location else ""
    errors_before = len(errors)
    if isinstance(value, RepeatedKeys):
        errors.extend(f"{prefix}{name}: given twice" for name in value.repeated)
    for name in (name for name in value if name not in types):
        printable = json.dumps(name) if has_lone_surrogate(name) else name
        errors.append(f"{prefix}{printable}: no such key; expected one of {', '.join(types)}")
    for field in fields(expected):
        if field.name not in value and field.default is MISSING:
            errors.append(f"{prefix}{field.name}: missing; expected {_describe(types[field.name])}")
    arguments = {
        name: _parse_value(types[name], value[name], f"{prefix}{name}", errors) for name in types if name in value
    }
    if len(errors) > errors_before:
        return None
    try:
        return expected(**arguments)
    except ValueError as error:
        errors.append(f"{location}: {error}" if location else str(error))
        return None


def _report(location: str, value: Any, expected: str, errors: list[str]) -> None:
    text = json.dumps(value, ensure_ascii=False)
    if has_lone_surrogate(text):
        text = json.dumps(value)
    errors.append(f"{location or 'the file'}: {text[:60]}{'…' if len(text) > 60 else ''}; expected {expected}")


def _describe(expected: Any) -> str:
    if is_dataclass(expected):
        return f"an object with {', '.join(field.name for field in fields(expected))}"
    if get_origin(expected) is tuple:
        return f"a list of {_describe(get_args(expected)[0])}"
    if get_origin(expected) is Literal:
        return "one of " + ", ".join(map(json.dumps, get_args(expected)))
    if get_origin(expected) in UNIONS:
        return " or ".join(map(_describe, get_args(expected)))
    return TYPE_NAMES[expected]
