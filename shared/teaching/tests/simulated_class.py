"""A class that hands in one lesson, written by program: right, wrong, half-way and hostile; and the marks it must get.

    python shared/teaching/tests/simulated_class.py write 5 FOLDER      thirty submissions into FOLDER/class, the marks beside them
    make grade-5 SUBMISSION=FOLDER/class
    python shared/teaching/tests/simulated_class.py compare FOLDER grades/lesson_05_llava

What is wrong is wrong by a planted bug, and the tests in the student's own process say whether it is one that shows: the
grader, with a border between tests and code, must say the same.
"""

import argparse
import json
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from shared.course.exercises import without_solutions
from shared.course.lesson import ROOT
from shared.teaching.markers import exercise_folder, exercises_of, part, parts
from shared.teaching.mutation.run_mutants import Outcome, hunt
from shared.teaching.tests import attacks as hostile

PASSED, FAILED, NOTHING = "✓", "✗", "·"
# A class of thirty has eleven who mean well and these.
TRICKS = (
    "exits", "skips", "deletes", "patches pytest", "patches torch", "forks", "kills", "lifts limits", "fills the disk",
    "fills memory", "loops", "sleeps", "prints", "forges answers", "reads the checkout", "imports the checkout",
    "asks for the installed course", "takes its twin", "calls home",
)  # fmt: skip
FEW = ("exits", "forges answers", "imports the checkout")
VICTIM = "as it was"


@dataclass
class Student:
    """What one student hands in, and the mark of each exercise that it is worth."""

    name: str
    files: dict[str, str]
    marks: dict[str, str]
    beside: dict[str, str] = field(default_factory=dict)
    """Files that nobody has asked for."""


class Lesson:
    """A lesson's files and exercises, from which students' are made."""

    def __init__(self, number: int):
        self.number, self.name = number, exercise_folder(number).name
        self.exercises = exercises_of(number)
        self.place = {each.number: each.path.relative_to(ROOT).as_posix() for each in self.exercises}
        self.solution = {path: (ROOT / path).read_text(encoding="utf-8") for path in set(self.place.values())}

    def student(self, name: str, bodies: dict[str, str], marks: dict[str, str]) -> Student:
        """Who has written these bodies, and left open every other exercise."""
        files = {path: without_solutions(text) for path, text in self.solution.items()}
        for exercise, body in bodies.items():
            files[self.place[exercise]] = with_part(files[self.place[exercise]], exercise, body)
        return Student(name, files, {each.number: marks.get(each.number, NOTHING) for each in self.exercises})

    def solved(self, name: str, exercises: list[str]) -> Student:
        bodies = {each: part(self.solution[self.place[each]], each) for each in exercises}
        return self.student(name, bodies, dict.fromkeys(exercises, PASSED))


def with_part(text: str, exercise: str, body: str) -> str:
    """A file with another body for one exercise."""
    lines, (first, last) = text.splitlines(keepends=True), parts(text)[exercise]
    return "".join([*lines[:first], body, *lines[last:]])


def class_of(number: int, places: dict[str, str], tricks: tuple[str, ...] = TRICKS, bugs: int = 5) -> list[Student]:
    """The class; `places` are what the tricks go to, and `bugs` is how many students share one bug in each exercise."""
    lesson, target = Lesson(number), hostile.TARGETS[number]
    every = [each.number for each in lesson.exercises]
    students = [
        lesson.solved("right", every),
        lesson.student("nothing", {}, {}),
        lesson.solved("the first half", every[: len(every) // 2]),
        *planted(lesson, bugs),
        broken(lesson, target),
        exits_on_import(lesson, target),
        own_tests(lesson, target),
    ]
    for trick in tricks:
        body = hostile.body(trick, target, **places)
        students.append(lesson.student(trick, {target.exercise: body}, {target.exercise: FAILED}))
    return students


def planted(lesson: Lesson, count: int) -> list[Student]:
    """Each has bugs in some exercises, all together one in each; where the exercise's own tests see nothing, it counts."""
    found: dict[str, list[Outcome]] = {}
    for outcome in hunt([lesson.number], 4 * len(lesson.exercises))[lesson.number] if count else []:
        found.setdefault(outcome.exercise.number, []).append(outcome)
    students = []
    for turn in range(count):
        chosen = {name: found[name][turn % len(found[name])] for name in list(found)[turn::count]}
        bodies = {name: part(outcome.mutant.text, name) for name, outcome in chosen.items()}
        marks = {name: FAILED if outcome.by else PASSED for name, outcome in chosen.items()}
        students.append(lesson.student(f"bugs {turn + 1}", bodies, marks))
    return students


def broken(lesson: Lesson, target) -> Student:
    """One file is no Python, and counts for nothing; the first of the other files counts."""
    own = [name for name, path in lesson.place.items() if path == target.file]
    other = next(name for name in lesson.place if name not in own)
    student = lesson.solved("broken", [other, *own])
    student.files[target.file] += "\ndef unfinished(:\n"
    student.marks |= dict.fromkeys(own, FAILED)
    return student


def exits_on_import(lesson: Lesson, target) -> Student:
    """Right, but for a first line that ends the process before any test."""
    student = lesson.solved("exits on import", [target.exercise])
    student.files[target.file] = f"import os\nos._exit(0)\n{student.files[target.file]}"
    student.marks[target.exercise] = FAILED
    return student


def own_tests(lesson: Lesson, target) -> Student:
    """Wrong, with tests, a pytest and a border of one's own that find everything right."""
    wrong = f"    import torch\n    return {target.wrong}\n"
    student = lesson.student("own tests", {target.exercise: wrong}, {target.exercise: FAILED})
    paths = ("conftest.py", "pytest.py", "torch.py", "shared/course/student.py", "course.toml")
    for path in (*paths, f"lessons/{lesson.name}/tests/test_exercises.py", f"lessons/{lesson.name}/README.md"):
        student.beside[path] = "raise SystemExit(0)\n"
    return student


def write(students: list[Student], number: int, folder: Path) -> None:
    """Lay the class out as a teacher would have it: folders, and for those who are right a zip."""
    for student in students:
        files = student.files | student.beside
        if student.name == "right":
            folder.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(folder / "right.zip", "w") as archive:
                for path, text in files.items():
                    archive.writestr(f"{exercise_folder(number).name}/{path}", text)
            continue
        for path, text in files.items():
            (folder / student.name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / student.name / path).write_text(text, encoding="utf-8")


def differences(marks: dict[str, dict[str, str]], graded: Path) -> list[str]:
    """Where the grader's own table says something else than it should: nothing, where all is well."""
    kept = json.loads((graded / "grades.json").read_text(encoding="utf-8"))
    found = [f"{name} is missing" for name in marks.keys() ^ kept["submissions"].keys()]
    for name in sorted(marks.keys() & kept["submissions"].keys()):
        given = kept["submissions"][name]
        for exercise, expected in marks[name].items():
            each = given["exercises"][exercise]
            mark = PASSED if 0 < each["tests"] == each["passed"] else FAILED if each["test"] else NOTHING
            if mark != expected:
                found.append(f"{name}, {exercise}: {mark} instead of {expected} ({each['said']})")
        worth = sum(kept["points"][exercise] for exercise, mark in marks[name].items() if mark == PASSED)
        if given["points"] != worth:
            found.append(f"{name}: {given['points']:g} points instead of {worth:g}")
    return found


def harmed(folder: Path) -> bool:
    """True when somebody has touched what is none of theirs."""
    victim = folder / "victim"
    return [path.name for path in victim.iterdir()] != ["tests.py"] or (victim / "tests.py").read_text() != VICTIM


def prepare(number: int, folder: Path, tricks: tuple[str, ...] = TRICKS, bugs: int = 5) -> dict[str, dict[str, str]]:
    """Write a class into `folder`/class, beside a victim for it; returns the marks, student → exercise → mark."""
    victim = folder / "victim"
    victim.mkdir(parents=True)
    (victim / "tests.py").write_text(VICTIM)
    victim.chmod(0o777)
    students = class_of(number, {"root": str(ROOT), "victim": str(victim), "port": "9"}, tricks, bugs)
    write(students, number, folder / "class")
    marks = {student.name: student.marks for student in students}
    (folder / "marks.json").write_text(json.dumps(marks, indent=1, ensure_ascii=False))
    return marks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked = parser.add_subparsers(dest="what", required=True)
    writing = asked.add_parser("write")
    writing.add_argument("lesson", type=int, choices=sorted(hostile.TARGETS))
    writing.add_argument("folder", type=Path)
    writing.add_argument("--few", action="store_true", help="ten students instead of thirty")
    comparing = asked.add_parser("compare")
    comparing.add_argument("folder", type=Path)
    comparing.add_argument("grades", type=Path)
    given = parser.parse_args()
    if given.what == "write":
        marks = prepare(given.lesson, given.folder, *((FEW, 1) if given.few else ()))
        print(f"{len(marks)} submissions: make grade-{given.lesson} SUBMISSION={given.folder / 'class'}")
        return 0
    marks = json.loads((given.folder / "marks.json").read_text(encoding="utf-8"))
    found = differences(marks, given.grades) + ["the victim was harmed"] * harmed(given.folder)
    print("\n".join(found) or f"{len(marks)} submissions, {sum(map(len, marks.values()))} marks: all as expected")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
