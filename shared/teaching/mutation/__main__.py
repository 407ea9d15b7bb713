"""`make mutants`: plant every small bug in every exercise, and list those that its tests don't notice.

python -m shared.teaching.mutation [LESSON …] [--sample 30] [--json FILE]
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.cli import command_line
from shared.course.lesson import ROOT
from shared.teaching.markers import exercise_tests
from shared.teaching.mutation.run_mutants import hunt, planted

GOAL = 0.9


@command_line()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lesson", type=int, nargs="*", help="lessons' numbers (default: all that have exercises)")
    parser.add_argument("--sample", type=int, help="about so many bugs a lesson, instead of all")
    parser.add_argument("--json", type=Path, help="write what was found there too")
    given = parser.parse_args()
    every = [
        int(path.name.split("_")[1]) for path in sorted((ROOT / "lessons").glob("lesson_*")) if exercise_tests(path)
    ]
    numbers, console = given.lesson or every, Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("bugs planted", total=sum(len(planted(number, given.sample)) for number in numbers))
        found = hunt(numbers, given.sample, lambda *_: progress.advance(bar))
    summary = {}
    for number, outcomes in found.items():
        survivors = [each for each in outcomes if not each.by]
        caught = len(outcomes) - len(survivors)
        share = caught / len(outcomes)
        summary[number] = {"planted": len(outcomes), "caught": caught, "share": round(share, 4)}
        style = "green" if share >= GOAL else "bold red"
        out = Console(soft_wrap=True, highlight=False)
        out.print(f"lesson {number}: [{style}]{caught} of {len(outcomes)} planted bugs are caught ({share:.1%})[/]")
        for each in survivors:
            out.print(f"  {each.exercise.number:>5}  {each.place}  {each.mutant.kind}: {escape(each.mutant.code)}")
    if given.json:
        given.json.write_text(json.dumps(summary, indent=1) + "\n")
    return 0 if all(each["share"] >= GOAL for each in summary.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
