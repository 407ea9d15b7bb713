"""JSON into frozen dataclasses and back, where whatever does not fit is said by its place: `stages[1].steps`."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Made = TypeVar("Made")
NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}


class Misfits(ValueError):
    """Everything in a JSON text that does not fit, a line each."""


def parse(kind: type[Made], text: str) -> Made:
    """The dataclass that a JSON text describes.

    Raises Misfits, which names every key that is unknown (and those that are known), missing, given twice, of another type
    or out of range; and ValueError for what is no JSON.
    """
    problems: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        names = [name for name, _ in pairs]
        problems.extend(f"{name}: given twice" for name in found if names.count(name) > 1)
        return found

    content = json.loads(text, object_pairs_hook=once)
    made = _read(kind, content, "", problems)
    if problems:
        raise Misfits("\n".join(problems))
    return made


def written(made: Any) -> str:
    """A dataclass as the JSON text that `parse` reads."""
    return json.dumps(asdict(made), indent=2, ensure_ascii=False) + "\n"


def _read(kind: Any, value: Any, place: str, problems: list[str]) -> Any:
    """`value` as a `kind`; what is wrong joins `problems`, and None is returned for it."""
    if is_dataclass(kind):
        return _object(kind, value, place, problems)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            return _misfit(place, value, f"a list of {_called(get_args(kind)[0])}", problems)
        return tuple(_read(get_args(kind)[0], each, f"{place}[{at}]", problems) for at, each in enumerate(value))
    if isinstance(kind, UnionType):
        others = [choice for choice in get_args(kind) if choice is not NoneType]
        return None if value is None and NoneType in get_args(kind) else _read(others[0], value, place, problems)
    if get_origin(kind) is Literal:
        fits = value in get_args(kind)
    elif kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    else:  # to Python true is a whole number, and to nobody else
        fits = type(value) is kind
    return value if fits else _misfit(place, value, _called(kind), problems)


def _object(kind: Any, value: Any, place: str, problems: list[str]) -> Any:
    if not isinstance(value, Mapping):
        return _misfit(place, value, _called(kind), problems)
    types, inside = get_type_hints(kind), f"{place}." if place else ""
    before = len(problems)
    for name in value.keys() - types.keys():
        problems.append(f"{inside}{name}: no such key; known are {', '.join(types)}")
    for field in fields(kind):
        if field.name not in value and field.default is MISSING:
            problems.append(f"{inside}{field.name}: missing; expected {_called(types[field.name])}")
    read = {name: _read(types[name], value[name], f"{inside}{name}", problems) for name in types if name in value}
    if len(problems) > before:
        return None
    try:
        return kind(**read)
    except ValueError as error:
        problems.append(f"{place}: {error}" if place else str(error))
        return None


def _misfit(place: str, value: Any, expected: str, problems: list[str]) -> None:
    shown = json.dumps(value, ensure_ascii=False)
    problems.append(f"{place or 'the file'}: {shown[:60]}{'…' if len(shown) > 60 else ''}; expected {expected}")


def _called(kind: Any) -> str:
    if is_dataclass(kind):
        return f"an object with {', '.join(field.name for field in fields(kind))}"
    if get_origin(kind) is tuple:
        return f"a list of {_called(get_args(kind)[0])}"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(json.dumps, get_args(kind)))
    if isinstance(kind, UnionType):
        return " or ".join(map(_called, get_args(kind)))
    return NAMES[kind]
