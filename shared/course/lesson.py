"""What a lesson is to the machinery around it: named arms to train and claims to measure on them."""

import importlib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from shared.errors import CourseError

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ("smoke", "cpu", "full", "gpu")

Measurements = Mapping[str, Any]
"""What one arm has measured: a flat mapping of names to numbers and lists, as its function returned it."""

Arms = Mapping[str, Measurements]
"""What every arm of one seed has measured, by the arm's name."""


@dataclass(frozen=True)
class Arm:
    """One thing that is trained and measured on its own: the headline model, a baseline, an ablation.

    `function` is "package.module:function"; it is called in a process of its own as
    `function(**settings, seed=…, data=…, device=…, folder=…, resume=…)` and returns what it measured.
    An arm runs in the presets that it has settings for, and only on the data set it is bound to, where it is.
    A lesson of several parts names the part that each arm belongs to; PART=… runs that part alone.
    """

    name: str
    function: str
    presets: Mapping[str, Mapping[str, Any]]
    only_on: str | None = None
    part: str | None = None


@dataclass(frozen=True)
class Claim:
    """A sentence that a run can find to be wrong.

    `measure` and `baseline` read the arms of one seed. The verdict over all seeds is *reproduced* when the mean
    lies on the right side of `threshold` (and of the mean baseline, where there is one).
    `expected` is the verdict on record; a run whose verdict differs from it fails.
    """

    name: str
    kind: Literal["exact", "learns", "paper"]
    sentence: str
    source: str
    arms: Sequence[str]
    measure: Callable[[Arms], float]
    threshold: float
    show: Literal["percent", "points", "number", "error"] = "percent"
    at_least: bool = True
    baseline: Callable[[Arms], float] | None = None
    baseline_name: str = ""
    presets: Sequence[str] = ("cpu", "full")
    """Where the threshold was calibrated. In another preset the claim is measured and not judged, unless it is exact."""
    expected: Literal["reproduced", "not at this scale"] = "reproduced"
    reason: str = ""
    """Why the claim does not show at this scale, where it does not."""

    def __post_init__(self) -> None:
        if (self.expected == "not at this scale") != bool(self.reason):
            raise ValueError(f"claim {self.name}: a reason belongs to the claims, and only those, expected not to show")


@dataclass(frozen=True)
class Lesson:
    """All that `make lesson-N` needs to know; `experiment/lesson.py` exports one as LESSON."""

    number: int
    arms: Sequence[Arm]
    claims: Sequence[Claim]
    headline: str
    """The name of the claim whose value stands for the lesson on the front page."""
    headline_caption: str
    """What that value is, in a few words."""
    figures: Callable[["Run"], Mapping[str, Any]]
    """Draws the lesson's figures from a finished run: file stem → matplotlib figure, the first one first in the README."""
    data_sets: Mapping[str, str]
    """preset → the data set it is made for; thresholds are judged on that one alone."""
    other_data_sets: Sequence[str] = ()
    """What else DATA may name; “folder:PATH” stands for a folder of one's own images."""
    captions: Mapping[str, str] = field(default_factory=dict)
    """A caption for each figure that the README shows, in its order."""

    def __post_init__(self) -> None:
        known = {arm.name for arm in self.arms}
        for claim in self.claims:
            if unknown := set(claim.arms) - known:
                raise ValueError(
                    f"claim {claim.name} names arms that lesson {self.number} does not have: {sorted(unknown)}"
                )
            parts = {arm.part for arm in self.arms if arm.name in claim.arms}
            if len(parts) != 1:
                raise ValueError(f"claim {claim.name} must read arms of one part, not of {sorted(map(str, parts))}")
        if self.headline not in {claim.name for claim in self.claims}:
            raise ValueError(f"lesson {self.number}: no claim is called {self.headline}")

    @property
    def parts(self) -> list[str]:
        """The names of the lesson's parts, in order; none where it is of one piece."""
        return list(dict.fromkeys(arm.part for arm in self.arms if arm.part is not None))

    def part_of(self, claim: str) -> str | None:
        """The part that the arms of a claim belong to; None in a lesson of one piece."""
        (arms,) = (each.arms for each in self.claims if each.name == claim)
        return next(arm.part for arm in self.arms if arm.name == arms[0])

    def arms_of(self, preset: str, data: str, part: str | None = None) -> list[Arm]:
        """The arms that run in a preset on a data set, or those of one part."""
        arms = [arm for arm in self.arms if preset in arm.presets and arm.only_on in (None, data)]
        return [arm for arm in arms if part in (None, arm.part)]

    def claims_of(self, preset: str, data: str, part: str | None = None) -> list[Claim]:
        """The claims that these arms can measure."""
        names = {arm.name for arm in self.arms_of(preset, data, part)}
        return [claim for claim in self.claims if names.issuperset(claim.arms)]


@dataclass(frozen=True)
class Run:
    """Finished arms of one preset over some seeds."""

    preset: str
    device: str
    data: str
    seeds: Sequence[int]
    folder: Path
    arms: Mapping[int, Arms]
    """seed → arm → measurements."""
    part: str | None = None
    """The part of the lesson that was run alone, if one was."""

    def arm_folder(self, seed: int, arm: str) -> Path:
        """Where an arm has left its checkpoints and records."""
        return self.folder / f"seed-{seed}" / arm


@dataclass(frozen=True)
class LessonEntry:
    """A line of the table of lessons."""

    number: int
    title: str
    kind: str
    minutes: int


def lesson_entries() -> list[LessonEntry]:
    """Every lesson of the course, built or planned, in order."""
    with (ROOT / "lessons" / "lessons.toml").open("rb") as file:
        return [LessonEntry(**entry) for entry in tomllib.load(file)["lesson"]]


def lesson_folder(number: int) -> Path | None:
    """The folder of lesson `number`, or None when it is not built yet."""
    found = sorted((ROOT / "lessons").glob(f"lesson_{number:02d}_*/experiment/lesson.py"))
    return found[0].parent.parent if found else None


def load_lesson(number: int) -> tuple[Lesson, Path]:
    """The lesson and its folder. Raises CourseError for a number that is no built lesson's."""
    folder = lesson_folder(number)
    if folder is None:
        built = [str(entry.number) for entry in lesson_entries() if lesson_folder(entry.number)]
        planned = any(entry.number == number for entry in lesson_entries())
        raise CourseError(
            f"lesson {number} is {'planned, not built yet' if planned else 'not in this course'}; built so far: {', '.join(built)}"
        )
    return importlib.import_module(f"lessons.{folder.name}.experiment.lesson").LESSON, folder
