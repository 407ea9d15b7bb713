"""Parse JSON into frozen dataclasses and back; every error names its location: `stages[1].steps`."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}


class JsonErrors(ValueError):
    """All errors of a JSON text, one per line."""


def parse(expected: type[T], text: str) -> T:
    """Return the dataclass that a JSON text describes.

    Raises JsonErrors, which names every key that is unknown, missing, duplicate, of the wrong type or out of range; and
    ValueError when the text is not JSON.
    """
    errors: list[str] = []

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        errors.extend(f"{name}: given twice" for name in dict(pairs) if names.count(name) > 1)
        return dict(pairs)

    content = json.loads(text, object_pairs_hook=refuse_duplicates)
    result = _parse_value(expected, content, "", errors)
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
    if isinstance(expected, UnionType):
        others = [choice for choice in get_args(expected) if choice is not NoneType]
        if value is None and NoneType in get_args(expected):
            return None
        return _parse_value(others[0], value, location, errors)
    if get_origin(expected) is Literal:
        fits = value in get_args(expected)
    elif expected is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    else:  # in Python bool is a subclass of int, in JSON true is no number
        fits = type(value) is expected
    return value if fits else _report(location, value, _describe(expected), errors)


def _parse_object(expected: Any, value: Any, location: str, errors: list[str]) -> Any:
    if not isinstance(value, Mapping):
        return _report(location, value, _describe(expected), errors)
    types, prefix = get_type_hints(expected), f"{location}." if location else ""
    errors_before = len(errors)
    for name in value.keys() - types.keys():
        errors.append(f"{prefix}{name}: no such key; expected one of {', '.join(types)}")
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
    errors.append(f"{location or 'the file'}: {text[:60]}{'…' if len(text) > 60 else ''}; expected {expected}")


def _describe(expected: Any) -> str:
    if is_dataclass(expected):
        return f"an object with {', '.join(field.name for field in fields(expected))}"
    if get_origin(expected) is tuple:
        return f"a list of {_describe(get_args(expected)[0])}"
    if get_origin(expected) is Literal:
        return "one of " + ", ".join(map(json.dumps, get_args(expected)))
    if isinstance(expected, UnionType):
        return " or ".join(map(_describe, get_args(expected)))
    return TYPE_NAMES[expected]
