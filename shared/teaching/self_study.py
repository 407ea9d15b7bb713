"""For those who learn alone: open a lesson's exercises, ask for a hint, look at a solution.

python -m shared.teaching.self_study start 1
python -m shared.teaching.self_study hint 1.3
python -m shared.teaching.self_study solution 1.3
"""

import argparse
import json
import sys
from pathlib import Path

from shared.atomic import write_atomically
from shared.cli import command_line, parse_whole_number
from shared.course.exercises import Exercise
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.markers import exercise_folder, exercises_of, listed, part, parts, stub

SOLUTIONS = ROOT / ".solutions"


def kept(number: int, folder: Path = SOLUTIONS) -> dict[str, str]:
    """The solutions that `start` has put away, by exercise; empty where a lesson was never opened."""
    path = folder / f"{exercise_folder(number).name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def start(number: int, folder: Path = SOLUTIONS) -> tuple[list[Exercise], list[Exercise]]:
    """Take a lesson's solutions out of its code, and keep them; returns the exercises opened, and those left as they are.

    What differs from the solution that was kept is a learner's own work, and is left alone: a second call harms nothing.
    """
    solutions, opened, left = kept(number, folder), [], []
    for exercise in exercises_of(number):
        text = exercise.path.read_text(encoding="utf-8")
        here = part(text, exercise.number)
        (left if solutions.setdefault(exercise.number, here) != here else opened).append(exercise)
    # First the solutions are safe, then they go.
    write_atomically(folder / f"{exercise_folder(number).name}.json", json.dumps(solutions, indent=1).encode())
    for exercise in opened:
        lines = exercise.path.read_text(encoding="utf-8").splitlines(keepends=True)
        first, last = parts("".join(lines))[exercise.number]
        lines[first:last] = [stub("".join(lines), exercise.number)]
        write_atomically(exercise.path, "".join(lines).encode())
    return opened, left


def find(exercise: str) -> tuple[int, Exercise]:
    """The lesson and exercise of a number such as 1.3. Raises CourseError where there is none."""
    number = parse_whole_number("exercise", exercise.split(".")[0])
    for found in exercises_of(number):
        if found.number == exercise:
            return number, found
    raise CourseError(
        f"lesson {number} has no exercise {exercise}; choose one of {', '.join(e.number for e in exercises_of(number))}"
    )


def hint(exercise: str) -> str:
    """What the lesson's page has to say to those who are stuck."""
    number, found = find(exercise)
    page = listed(exercise_folder(number))[exercise]
    place = found.path.relative_to(ROOT)
    return (
        f"{exercise}, {found.title} ({place}, about {page['minutes']} minutes)\n{page['hint'] or 'There is no hint.'}"
    )


def solution(exercise: str, folder: Path = SOLUTIONS) -> str:
    """The lines that `start` has put away, or those that stand in the code where it was never opened."""
    number, found = find(exercise)
    return kept(number, folder).get(exercise) or part(found.path.read_text(encoding="utf-8"), exercise)


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("start", "hint", "solution"))
    parser.add_argument("which", help="a lesson's number for start, an exercise's (1.3) for the others")
    given = parser.parse_args()
    if given.what == "start":
        opened, left = start(parse_whole_number("lesson", given.which))
        for exercise in opened:
            print(f"{exercise.number:>5}  {exercise.title}: {exercise.path.relative_to(ROOT)}")
        if left:
            print(f"left as you wrote them: {', '.join(exercise.number for exercise in left)}")
        print(
            f"now: make check-{given.which}, make hint-{(opened or left)[0].number}, make solution-{(opened or left)[0].number}"
        )
    else:
        print(hint(given.which) if given.what == "hint" else solution(given.which).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
