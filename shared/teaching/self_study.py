"""For self-study: open a lesson's exercises, show a hint, show a solution.

python -m shared.teaching.self_study start 1
python -m shared.teaching.self_study hint 1.3
python -m shared.teaching.self_study solution 1.3
"""

import argparse
import json
import re
import sys
from pathlib import Path

from shared.atomic import write_atomically
from shared.cli import command_line, parse_whole_number
from shared.course.exercises import Exercise
from shared.course.lesson import ROOT
from shared.course.records import read_json
from shared.errors import CourseError
from shared.teaching.markers import (
    exercise_code,
    exercise_folder,
    exercise_ranges,
    exercise_stub,
    exercise_table,
    exercises_of,
)

SOLUTIONS_FOLDER = ROOT / ".solutions"


def saved_solutions(lesson: int, folder: Path = SOLUTIONS_FOLDER) -> dict[str, str]:
    """Return the solutions that `start` saved, by exercise; {} for a lesson that was never opened."""
    path = folder / f"{exercise_folder(lesson).name}.json"
    return read_json(path) if path.exists() else {}


def start(lesson: int, folder: Path = SOLUTIONS_FOLDER) -> tuple[list[Exercise], list[Exercise]]:
    """Take a lesson's solutions out of its code and save them. Return the exercises opened, and those left alone.

    Code that differs from the saved solution is the learner's own and is left alone, so a second call is harmless.
    """
    solutions = saved_solutions(lesson, folder)
    opened: list[Exercise] = []
    left_alone: list[Exercise] = []
    for exercise in exercises_of(lesson):
        code = exercise_code(exercise.path.read_text(encoding="utf-8"), exercise.number)
        unchanged = solutions.setdefault(exercise.number, code) == code
        (opened if unchanged else left_alone).append(exercise)
    # Save the solutions before they are removed.
    write_atomically(folder / f"{exercise_folder(lesson).name}.json", json.dumps(solutions, indent=1).encode())
    for exercise in opened:
        lines = exercise.path.read_text(encoding="utf-8").splitlines(keepends=True)
        first, last = exercise_ranges("".join(lines))[exercise.number]
        lines[first:last] = [exercise_stub("".join(lines), exercise.number)]
        write_atomically(exercise.path, "".join(lines).encode())
    return opened, left_alone


def find_exercise(number: str) -> Exercise:
    """Return the exercise of a number such as 1.3. Raises CourseError when there is none."""
    if not re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}", number):
        raise CourseError(f"{number!r} is not an exercise's number; write lesson and exercise, as 1.3")
    lesson = int(number.split(".")[0])
    exercises = {exercise.number: exercise for exercise in exercises_of(lesson)}
    if number not in exercises:
        raise CourseError(f"lesson {lesson} has no exercise {number}; choose one of {', '.join(exercises)}")
    return exercises[number]


def hint(number: str) -> str:
    """Return the hint of an exercise from the lesson's page, with its title, file and minutes."""
    exercise = find_exercise(number)
    info = exercise_table(exercise_folder(exercise.lesson))[number]
    place = exercise.path.relative_to(ROOT)
    return f"{number}, {exercise.title} ({place}, about {info.minutes} minutes)\n{info.hint or 'There is no hint.'}"


def solution(number: str, folder: Path = SOLUTIONS_FOLDER) -> str:
    """Return the solution that `start` saved, or the code in the file if the lesson was never opened."""
    exercise = find_exercise(number)
    saved = saved_solutions(exercise.lesson, folder)
    return saved.get(number) or exercise_code(exercise.path.read_text(encoding="utf-8"), number)


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description="Open a lesson's exercises, show a hint, show a solution.")
    parser.add_argument("action", choices=("start", "hint", "solution"))
    parser.add_argument("number", help="a lesson's number for start, an exercise's (1.3) for the others")
    options = parser.parse_args()
    if options.action == "start":
        opened, left_alone = start(parse_whole_number("lesson", options.number))
        for exercise in opened:
            print(f"{exercise.number:>5}  {exercise.title}: {exercise.path.relative_to(ROOT)}")
        if left_alone:
            print(f"left as you wrote them: {', '.join(exercise.number for exercise in left_alone)}")
        first = (opened or left_alone)[0].number
        print(f"next: make check-{options.number}, make hint-{first}, make solution-{first}")
    else:
        print(hint(options.number) if options.action == "hint" else solution(options.number).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
