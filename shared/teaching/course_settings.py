"""Read `course.toml`, where an instructor sets dates, points, and the resources of a student's code."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from pathlib import Path

from shared.course.exercises import find_exercises
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.isolation.sandbox import Limits
from shared.teaching.lateness import LatePolicy
from shared.teaching.markers import exercise_table
from shared.text_files import read_text

PATH = ROOT / "course.toml"
DEFAULT_TITLE = "Multimodal from Scratch"


@dataclass(frozen=True)
class Assignment:
    """One lesson as it is assigned to a class."""

    title: str
    """The title of the course."""
    points: Mapping[str, int | float]
    """Exercise → points: its difficulty unless `course.toml` sets another value."""
    opens: date | datetime | None
    due: date | datetime | None
    limits: Limits
    late: LatePolicy = field(default_factory=LatePolicy)


def load_assignment(number: int, folder: Path, path: Path = PATH) -> Assignment:
    """Return what `course.toml` sets for a lesson. Raises CourseError for unknown names and invalid values."""
    try:
        settings = tomllib.loads(read_text(path)) if path.exists() else {}
    except tomllib.TOMLDecodeError as error:
        raise CourseError(f"{path}: {error}") from None
    _check_names(path, settings, {"title", "limits", "late", "lesson"}, "the file")
    lesson = settings.get("lesson", {}).get(str(number), {})
    _check_names(path, lesson, {"opens", "due", "points"}, f"lesson {number}")
    limits = settings.get("limits", {})
    _check_names(path, limits, {field.name for field in fields(Limits)}, "[limits]")
    for name, value in limits.items():
        if type(value) is not int or value < 1:
            raise CourseError(f"{path}: [limits] {name} is {value!r}; expected a whole number from 1 on")
    for name in ("opens", "due"):
        if not isinstance(lesson.get(name), date | None):
            value = lesson[name]
            raise CourseError(
                f"{path}: lesson {number}, {name} = {value!r}; write a date as 2027-03-31, without quotes"
            )
    late = settings.get("late", {})
    _check_names(path, late, {field.name for field in fields(LatePolicy)}, "[late]")
    for name, value in late.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise CourseError(f"{path}: [late] {name} is {value!r}; expected a number from 0 on")
    points = _default_points(folder) | _checked_points(path, number, lesson.get("points", {}), folder)
    title = settings.get("title", DEFAULT_TITLE)
    return Assignment(title, points, lesson.get("opens"), lesson.get("due"), Limits(**limits), LatePolicy(**late))


def _default_points(folder: Path) -> dict[str, int | float]:
    points: dict[str, int | float] = {number: info.difficulty for number, info in exercise_table(folder).items()}
    if unlisted := [exercise.number for exercise in find_exercises(folder) if exercise.number not in points]:
        raise CourseError(
            f"{folder.name}: no README lists exercise {', '.join(unlisted)} with its difficulty and minutes"
        )
    return points


def _checked_points(path: Path, number: int, points: dict[str, int | float], folder: Path) -> dict[str, int | float]:
    _check_names(path, points, set(exercise_table(folder)), f"the points of lesson {number}")
    for exercise, value in points.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise CourseError(f"{path}: exercise {exercise} has {value!r} points; expected a number from 0 on")
    return points


def _check_names(path: Path, settings: Mapping, names: set[str], where: str) -> None:
    if unknown := sorted(set(settings) - names):
        raise CourseError(f"{path}: unknown in {where}: {', '.join(unknown)}; known are {', '.join(sorted(names))}")
