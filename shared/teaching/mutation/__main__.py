"""`make mutants`: plant every small bug in every exercise, and list those that its tests do not catch.

python -m shared.teaching.mutation [LESSON …] [--sample 30 | --student-bugs] [--json FILE]
"""

import argparse
import functools
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.cli import command_line, parse_whole_number
from shared.teaching.markers import lessons_with_exercises
from shared.teaching.mutation.run_mutants import lesson_mutants, run_mutants
from shared.teaching.mutation.student_bugs import lessons_with_bugs, run_student_bugs, student_bugs

MIN_CAUGHT = 0.9
"""The fraction of mutants that the tests of each lesson must catch."""


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description="Plant small bugs in exercises and list those that no test catches.")
    number = functools.partial(parse_whole_number, "lesson")
    parser.add_argument("lesson", type=number, nargs="*", help="lessons' numbers (default: all that have exercises)")
    sample = functools.partial(parse_whole_number, "sample", least=1)
    parser.add_argument("--sample", type=sample, help="number of bugs per lesson (default: all)")
    parser.add_argument("--student-bugs", action="store_true", help="plant the listed errors of students instead")
    parser.add_argument("--json", type=Path, help="also write the summary to this file")
    options = parser.parse_args()
    lessons = options.lesson or (lessons_with_bugs() if options.student_bugs else lessons_with_exercises())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as progress:
        if options.student_bugs:
            bar = progress.add_task("bugs planted", total=sum(len(student_bugs(lesson)) for lesson in lessons))
            outcomes = run_student_bugs(lessons, lambda outcome: progress.advance(bar))
        else:
            total = sum(len(lesson_mutants(lesson, options.sample)) for lesson in lessons)
            bar = progress.add_task("bugs planted", total=total)
            outcomes = run_mutants(lessons, options.sample, lambda outcome: progress.advance(bar))
    summary = {}
    console = Console(soft_wrap=True, highlight=False)
    for lesson, of_lesson in outcomes.items():
        survivors = [outcome for outcome in of_lesson if not outcome.caught_by]
        caught = len(of_lesson) - len(survivors)
        fraction = caught / len(of_lesson)
        summary[lesson] = {"planted": len(of_lesson), "caught": caught, "fraction": round(fraction, 4)}
        style = "green" if fraction >= MIN_CAUGHT else "bold red"
        console.print(
            f"lesson {lesson}: [{style}]{caught} of {len(of_lesson)} planted bugs are caught ({fraction:.1%})[/]"
        )
        for outcome in survivors:
            mutant = outcome.mutant
            line = f"  {outcome.exercise.number:>5}  {outcome.place}  {mutant.kind}: {escape(mutant.code)}"
            console.print(line)
    if options.json:
        options.json.write_text(json.dumps(summary, indent=1) + "\n")
    return 0 if all(each["fraction"] >= MIN_CAUGHT for each in summary.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
