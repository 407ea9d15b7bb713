"""Write a simulated class that hands in one lesson (right, wrong, partial and hostile) and the grades it must get.

    python -m shared.teaching.tests.simulated_class write 5 FOLDER     thirty submissions into FOLDER/class
    make grade-5 SUBMISSION=FOLDER/class
    python -m shared.teaching.tests.simulated_class compare FOLDER grades/lesson_05_llava

Wrong submissions contain a planted bug. Whether a bug must be caught is determined by running the tests in the
student's own process; the grader, which isolates the code from the tests, must come to the same result.
"""

import argparse
import json
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from shared.course.exercises import without_solutions
from shared.course.lesson import ROOT
from shared.teaching.exercise_result import ExerciseResult
from shared.teaching.markers import exercise_code, exercise_folder, exercise_ranges, exercises_of
from shared.teaching.mutation.run_mutants import Outcome, run_mutants
from shared.teaching.tests import attacks

PASSED, FAILED, NOTHING = "✓", "✗", "·"
# A class of thirty: eleven honest students and these attacks.
CLASS_ATTACKS = (
    "exits",
    "skips",
    "deletes",
    "patches pytest",
    "patches torch",
    "forks",
    "kills",
    "lifts limits",
    "fills the disk",
    "fills memory",
    "loops",
    "sleeps",
    "prints",
    "forges answers",
    "reads the checkout",
    "imports the checkout",
    "asks for the installed course",
    "uses the reference",
    "connects",
)
FEW_ATTACKS = ("exits", "forges answers", "imports the checkout")
VICTIM = "unchanged"


@dataclass
class SimulatedStudent:
    """What one student hands in, and the grade of each exercise that it must get."""

    name: str
    files: dict[str, str]
    grades: dict[str, str]
    extra_files: dict[str, str] = field(default_factory=dict)
    """Files that are not part of the submission."""


class SimulatedLesson:
    """A lesson's files and exercises, from which submissions are made."""

    def __init__(self, number: int):
        self.number, self.name = number, exercise_folder(number).name
        self.exercises = exercises_of(number)
        self.path_of = {each.number: each.path.relative_to(ROOT).as_posix() for each in self.exercises}
        self.solution = {path: (ROOT / path).read_text(encoding="utf-8") for path in set(self.path_of.values())}

    def student(self, name: str, bodies: dict[str, str], grades: dict[str, str]) -> SimulatedStudent:
        """Return a student who wrote these bodies and left every other exercise open."""
        files = {path: without_solutions(text) for path, text in self.solution.items()}
        for exercise, body in bodies.items():
            files[self.path_of[exercise]] = replace_body(files[self.path_of[exercise]], exercise, body)
        return SimulatedStudent(name, files, {each.number: grades.get(each.number, NOTHING) for each in self.exercises})

    def solved(self, name: str, exercises: list[str]) -> SimulatedStudent:
        """Return a student who handed in the solution of these exercises."""
        bodies = {each: exercise_code(self.solution[self.path_of[each]], each) for each in exercises}
        return self.student(name, bodies, dict.fromkeys(exercises, PASSED))


def replace_body(text: str, exercise: str, body: str) -> str:
    """Return a file with another body for one exercise."""
    lines, (first, last) = text.splitlines(keepends=True), exercise_ranges(text)[exercise]
    return "".join([*lines[:first], body, *lines[last:]])


def simulate_class(
    number: int, places: dict[str, str], names: tuple[str, ...] = CLASS_ATTACKS, bugs: int = 5
) -> list[SimulatedStudent]:
    """Return the class.

    places  what the attacks aim at
    names   the attacks in the class
    bugs    the number of students with planted bugs, who share one bug in each exercise
    """
    lesson, target = SimulatedLesson(number), attacks.TARGETS[number]
    numbers = [each.number for each in lesson.exercises]
    students = [
        lesson.solved("right", numbers),
        lesson.student("nothing", {}, {}),
        lesson.solved("the first half", numbers[: len(numbers) // 2]),
        *students_with_bugs(lesson, bugs),
        syntax_error(lesson, target),
        exits_on_import(lesson, target),
        own_tests(lesson, target),
    ]
    for name in names:
        body = attacks.attack_body(name, target, **places)
        students.append(lesson.student(name, {target.exercise: body}, {target.exercise: FAILED}))
    return students


def students_with_bugs(lesson: SimulatedLesson, count: int) -> list[SimulatedStudent]:
    """Return students with planted bugs, together one in each exercise. A bug that no test catches counts as passed."""
    outcomes: dict[str, list[Outcome]] = {}
    for outcome in run_mutants([lesson.number], 4 * len(lesson.exercises))[lesson.number] if count else []:
        outcomes.setdefault(outcome.exercise.number, []).append(outcome)
    students = []
    for index in range(count):
        chosen = {name: outcomes[name][index % len(outcomes[name])] for name in list(outcomes)[index::count]}
        bodies = {name: exercise_code(outcome.mutant.text, name) for name, outcome in chosen.items()}
        grades = {name: FAILED if outcome.caught_by else PASSED for name, outcome in chosen.items()}
        students.append(lesson.student(f"bugs {index + 1}", bodies, grades))
    return students


def syntax_error(lesson: SimulatedLesson, target: attacks.Target) -> SimulatedStudent:
    """Return a student with one file that is not Python, which earns nothing, and one exercise of another file."""
    in_file = [name for name, path in lesson.path_of.items() if path == target.file]
    other = next(name for name in lesson.path_of if name not in in_file)
    student = lesson.solved("syntax error", [other, *in_file])
    student.files[target.file] += "\ndef unfinished(:\n"
    student.grades |= dict.fromkeys(in_file, FAILED)
    return student


def exits_on_import(lesson: SimulatedLesson, target: attacks.Target) -> SimulatedStudent:
    """Return a student with a right solution whose first line ends the process before any test."""
    student = lesson.solved("exits on import", [target.exercise])
    student.files[target.file] = f"import os\nos._exit(0)\n{student.files[target.file]}"
    student.grades[target.exercise] = FAILED
    return student


def own_tests(lesson: SimulatedLesson, target: attacks.Target) -> SimulatedStudent:
    """Return a student with a wrong answer, and with tests, a pytest and a `Student` of their own that accept it."""
    wrong = f"    import torch\n    return {target.wrong}\n"
    student = lesson.student("own tests", {target.exercise: wrong}, {target.exercise: FAILED})
    paths = ("conftest.py", "pytest.py", "torch.py", "shared/course/student.py", "course.toml")
    for path in (*paths, f"lessons/{lesson.name}/tests/test_exercises.py", f"lessons/{lesson.name}/README.md"):
        student.extra_files[path] = "raise SystemExit(0)\n"
    return student


def write_class(students: list[SimulatedStudent], number: int, folder: Path) -> None:
    """Write the submissions as a teacher receives them: folders, and a zip for the student who is right."""
    for student in students:
        files = student.files | student.extra_files
        if student.name == "right":
            folder.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(folder / "right.zip", "w") as archive:
                for path, text in files.items():
                    archive.writestr(f"{exercise_folder(number).name}/{path}", text)
            continue
        for path, text in files.items():
            (folder / student.name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / student.name / path).write_text(text, encoding="utf-8")


def grade_differences(expected: dict[str, dict[str, str]], graded: Path) -> list[str]:
    """Return where the grader's grades.json differs from the expected grades."""
    record = json.loads((graded / "grades.json").read_text(encoding="utf-8"))
    differences = [f"{name} is missing" for name in expected.keys() ^ record["submissions"].keys()]
    for name in sorted(expected.keys() & record["submissions"].keys()):
        submission = record["submissions"][name]
        for exercise, grade in expected[name].items():
            result = ExerciseResult(**submission["exercises"][exercise])
            actual = PASSED if result.solved else FAILED if result.failed_test else NOTHING
            if actual != grade:
                differences.append(f"{name}, {exercise}: {actual} instead of {grade} ({result.message})")
        points = sum(record["points"][exercise] for exercise, grade in expected[name].items() if grade == PASSED)
        if submission["points"] != points:
            differences.append(f"{name}: {submission['points']:g} points instead of {points:g}")
    return differences


def is_harmed(folder: Path) -> bool:
    """Return True when a submission has changed the files of the victim."""
    victim = folder / "victim"
    return [path.name for path in victim.iterdir()] != ["tests.py"] or (victim / "tests.py").read_text() != VICTIM


def prepare(
    number: int, folder: Path, names: tuple[str, ...] = CLASS_ATTACKS, bugs: int = 5
) -> dict[str, dict[str, str]]:
    """Write a class into `folder`/class, and a victim beside it. Return the grades, student → exercise → grade."""
    victim = folder / "victim"
    victim.mkdir(parents=True)
    (victim / "tests.py").write_text(VICTIM)
    victim.chmod(0o777)
    students = simulate_class(number, {"root": str(ROOT), "victim": str(victim), "port": "9"}, names, bugs)
    write_class(students, number, folder / "class")
    grades = {student.name: student.grades for student in students}
    (folder / "expected_grades.json").write_text(json.dumps(grades, indent=1, ensure_ascii=False))
    return grades


def main() -> int:
    parser = argparse.ArgumentParser(description="Write a simulated class, or compare the grades that it got.")
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write")
    write.add_argument("lesson", type=int, choices=sorted(attacks.TARGETS))
    write.add_argument("folder", type=Path)
    write.add_argument("--few", action="store_true", help="ten students instead of thirty")
    compare = commands.add_parser("compare")
    compare.add_argument("folder", type=Path)
    compare.add_argument("grades", type=Path)
    options = parser.parse_args()
    if options.command == "write":
        expected = prepare(options.lesson, options.folder, *((FEW_ATTACKS, 1) if options.few else ()))
        print(f"{len(expected)} submissions: make grade-{options.lesson} SUBMISSION={options.folder / 'class'}")
        return 0
    expected = json.loads((options.folder / "expected_grades.json").read_text(encoding="utf-8"))
    differences = grade_differences(expected, options.grades)
    differences += ["the victim was harmed"] if is_harmed(options.folder) else []
    print(
        "\n".join(differences) or f"{len(expected)} submissions, {sum(map(len, expected.values()))} grades: as expected"
    )
    return bool(differences)


if __name__ == "__main__":
    sys.exit(main())
