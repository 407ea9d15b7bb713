"""`course.toml`: what an instructor decides, and nobody else: dates, points, and what a student's code may use."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from pathlib import Path

from shared.course.exercises import find_exercises
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.isolation.sandbox import Limits
from shared.teaching.markers import listed

PATH = ROOT / "course.toml"


@dataclass(frozen=True)
class Assignment:
    """One lesson as it is given to a class."""

    title: str
    points: Mapping[str, int | float]
    """Exercise → points; its difficulty, where `course.toml` says nothing."""
    opens: date | datetime | None
    due: date | datetime | None
    limits: Limits


def assignment(number: int, folder: Path, path: Path = PATH) -> Assignment:
    """What `course.toml` says of a lesson. Raises CourseError for anything in it that is not understood."""
    try:
        text = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except tomllib.TOMLDecodeError as error:
        raise CourseError(f"{path}: {error}") from None
    _known(path, text, {"title", "limits", "lesson"}, "the file")
    own = text.get("lesson", {}).get(str(number), {})
    _known(path, own, {"opens", "due", "points"}, f"lesson {number}")
    limits = text.get("limits", {})
    _known(path, limits, {each.name for each in fields(Limits)}, "[limits]")
    for name, value in limits.items():
        if type(value) is not int or value < 1:
            raise CourseError(f"{path}: [limits] {name} is {value!r}; a whole number from 1 on is expected")
    points = {exercise: page["difficulty"] for exercise, page in listed(folder).items()}
    if unlisted := [exercise.number for exercise in find_exercises(folder) if exercise.number not in points]:
        raise CourseError(
            f"{folder.name}: no README lists exercise {', '.join(unlisted)} with its difficulty and minutes"
        )
    given = own.get("points", {})
    _known(path, given, set(points), f"the points of lesson {number}")
    for exercise, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise CourseError(f"{path}: exercise {exercise} is worth {value!r}; a number from 0 on is expected")
    for name in ("opens", "due"):
        if not isinstance(own.get(name), date | None):
            raise CourseError(
                f"{path}: lesson {number}, {name} = {own[name]!r}; write a date as 2027-03-31, without quotes"
            )
    return Assignment(
        text.get("title", "Multimodal from Scratch"), points | given, own.get("opens"), own.get("due"), Limits(**limits)
    )


def _known(path: Path, found: Mapping, allowed: set[str], where: str) -> None:
    if unknown := sorted(set(found) - allowed):
        raise CourseError(f"{path}: {where} does not know {', '.join(unknown)}; it knows {', '.join(sorted(allowed))}")
