"""Define what a lesson exports (arms, claims, figures) and find lessons by number.

python -S -m shared.course.lesson 1        # print the lesson's folder; needs no installation
"""

import importlib
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from shared.cli import command_line, parse_whole_number
from shared.errors import CourseError

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ("smoke", "cpu", "full", "gpu")

Measurements = Mapping[str, Any]
"""What the function of one arm returned: a flat mapping of names to numbers and lists."""

Arms = Mapping[str, Measurements]
"""The measurements of all arms of one seed, by the arm's name."""


@dataclass(frozen=True)
class Arm:
    """One model that is trained and measured on its own: the headline model, a baseline or an ablation.

    `function` is "package.module:function". It is called in its own process as `function(context, **settings)`, with
    a RunContext and the settings of the preset, and returns its measurements.
    An arm runs in the presets for which it has settings, and only on the data set `only_on` when that is given.
    In a lesson with several parts `part` names the part that the arm belongs to; PART=… runs that part alone.
    `after` names earlier arms whose measurements this one reads (`RunContext.measurements_of`). Give it their settings
    too, so that a change of theirs makes its result stale.
    """

    name: str
    function: str
    presets: Mapping[str, Mapping[str, Any]]
    only_on: str | None = None
    part: str | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A sentence that a run can prove wrong.

    name           identifies the claim in records
    kind           "exact": an identity; "learns": a trained model beats a baseline; "paper": a claim of a publication
    sentence       subject, metric, comparison and unit, in a sentence that stands alone
    source         where the claim stands: arXiv id and section, or a file
    arms           names of the arms that `measure` and `baseline` read
    measure        reads the value from the arms of one seed
    threshold      the verdict is *reproduced* when the whole 95 % interval over seeds lies on its right side and, with
                   a baseline, the interval of the differences paired by seed lies beyond zero
    baseline_name  what the baseline is, in a few words
    presets        presets for which the threshold was calibrated; in others only exact claims are judged
    expected       the recorded verdict; recording fails when the verdict differs
    hypothesis     why a claim is not reproduced, and which experiment tests that; empty when it is reproduced
    paper_value    the publication's own number, with its setting; empty when it reports none
    test_items     number of test items that a fraction was measured on, for the sampling error of the test set
    chosen_on      the split on which the settings of the arms were chosen; "" when none was set aside for that
    measured_on    the split on which the claim is measured; "" when it reads no data

    Raises ValueError for a hypothesis without the verdict "not reproduced", or that verdict without one.
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
    expected: Literal["reproduced", "not reproduced", "inconclusive"] = "reproduced"
    hypothesis: str = ""
    paper_value: str = ""
    test_items: int | None = None
    chosen_on: str = "validation"
    measured_on: str = "test"
    question: str = ""
    """The question that the claim helps to answer; `question` below sets it. Exact claims need none."""

    def __post_init__(self) -> None:
        if (self.expected == "not reproduced") != bool(self.hypothesis):
            raise ValueError(f"claim {self.name}: give a hypothesis if and only if expected is 'not reproduced'")


def question(text: str, *claims: Claim) -> tuple[Claim, ...]:
    """Return the claims that answer one question; pages and reports show them in one table under it."""
    return tuple(replace(claim, question=text) for claim in claims)


@dataclass(frozen=True)
class Lesson:
    """All that `make lesson-N` needs; `experiment/lesson.py` exports one as LESSON."""

    number: int
    arms: Sequence[Arm]
    claims: Sequence[Claim]
    headline: str
    """The name of the claim whose value represents the lesson on the front page."""
    headline_caption: str
    """What that value measures, in a few words."""
    figures: Callable[["Run"], Mapping[str, Any]]
    """Draws the figures of a finished run: file stem → matplotlib figure, in the order of the README."""
    data_sets: Mapping[str, str]
    """preset → its data set; thresholds are judged on that data set only."""
    other_data_sets: Sequence[str] = ()
    """Further values for DATA; "folder:PATH" accepts a folder of the user's images."""
    captions: Mapping[str, str] = field(default_factory=dict)
    """A caption for each figure in the README, in order."""
    splits: Mapping[str, str] = field(default_factory=lambda: {"validation": "", "test": ""})
    """Each split that claims name → what it holds, in a few words."""

    def __post_init__(self) -> None:
        arm_names = {arm.name for arm in self.arms}
        for claim in self.claims:
            if unknown := set(claim.arms) - arm_names:
                raise ValueError(
                    f"claim {claim.name} names arms that lesson {self.number} does not have: {sorted(unknown)}"
                )
            if unknown := {claim.chosen_on, claim.measured_on} - {"", *self.splits}:
                raise ValueError(
                    f"claim {claim.name} names splits that lesson {self.number} does not describe: {unknown}"
                )
            parts = {arm.part for arm in self.arms if arm.name in claim.arms}
            if len(parts) != 1:
                raise ValueError(f"claim {claim.name} must read arms of one part, not of {sorted(map(str, parts))}")
        if self.headline not in {claim.name for claim in self.claims}:
            raise ValueError(f"lesson {self.number}: no claim is called {self.headline}")

    @property
    def parts(self) -> list[str]:
        """The names of the lesson's parts, in order; empty for a lesson without parts."""
        return list(dict.fromkeys(arm.part for arm in self.arms if arm.part is not None))

    def part_of(self, claim_name: str) -> str | None:
        """Return the part that the arms of a claim belong to; None in a lesson without parts."""
        (arms,) = (claim.arms for claim in self.claims if claim.name == claim_name)
        return next(arm.part for arm in self.arms if arm.name == arms[0])

    def arms_of(self, preset: str, data: str, part: str | None = None) -> list[Arm]:
        """Return the arms that run in a preset on a data set, or those of one part."""
        arms = [arm for arm in self.arms if preset in arm.presets and arm.only_on in (None, data)]
        return [arm for arm in arms if part in (None, arm.part)]

    def claims_of(self, preset: str, data: str, part: str | None = None) -> list[Claim]:
        """Return the claims that these arms can measure."""
        names = {arm.name for arm in self.arms_of(preset, data, part)}
        return [claim for claim in self.claims if names.issuperset(claim.arms)]


@dataclass(frozen=True)
class Run:
    """The finished arms of one preset over some seeds."""

    preset: str
    device: str
    data: str
    seeds: Sequence[int]
    folder: Path
    arms: Mapping[int, Arms]
    """seed → arm → measurements."""
    part: str | None = None
    """The part of the lesson that was run alone; None for the whole lesson."""

    def arm_folder(self, seed: int, arm: str) -> Path:
        """Return the folder with an arm's checkpoints and records."""
        return self.folder / f"seed-{seed}" / arm

    def measurements(self, arm: str, name: str) -> list[Any]:
        """Return one measurement of an arm for every seed."""
        return [self.arms[seed][arm][name] for seed in self.seeds]


@dataclass(frozen=True)
class LessonEntry:
    """One entry of lessons/lessons.toml.

    measured  False while a lesson is being written and has no results.json yet
    """

    number: int
    title: str
    kind: str
    minutes: int
    measured: bool = True


def lesson_entries() -> list[LessonEntry]:
    """Return every lesson of the course, built or planned, in order."""
    with (ROOT / "lessons" / "lessons.toml").open("rb") as file:
        return [LessonEntry(**entry) for entry in tomllib.load(file)["lesson"]]


def lesson_folder(number: int) -> Path | None:
    """Return the folder of lesson `number`, or None when the lesson is not built yet."""
    paths = sorted((ROOT / "lessons").glob(f"lesson_{number:02d}_*/experiment/lesson.py"))
    return paths[0].parent.parent if paths else None


def find_lesson(number: int) -> Path:
    """Return the folder of lesson `number`. Raises CourseError when the lesson is not built."""
    if folder := lesson_folder(number):
        return folder
    built = [str(entry.number) for entry in lesson_entries() if lesson_folder(entry.number)]
    planned = any(entry.number == number for entry in lesson_entries())
    state = "planned, not built yet" if planned else "not in this course"
    raise CourseError(f"lesson {number} is {state}; built so far: {', '.join(built)}")


def load_lesson(number: int) -> tuple[Lesson, Path]:
    """Return a lesson and its folder. Raises CourseError when lesson `number` is not built."""
    folder = find_lesson(number)
    return importlib.import_module(f"lessons.{folder.name}.experiment.lesson").LESSON, folder


@command_line()
def main() -> None:
    """Print the folder of the lesson whose number is given, for a make target."""
    number = sys.argv[1] if len(sys.argv) > 1 else ""
    print(find_lesson(parse_whole_number("lesson", number)).relative_to(ROOT).as_posix())


if __name__ == "__main__":
    sys.exit(main())
