"""Measure how long `make lesson-N` takes for one seed and record it in `results.json` (`make time-N`).

A lesson with parts is measured part by part. The time is read from a clock, so the machine should be idle. Nothing
else changes in the record.

    python -m shared.course.command_time 3
"""

import argparse
import sys
import time

from shared.cli import command_line, parse_whole_number
from shared.course.lesson import load_lesson
from shared.course.readme import write_readmes
from shared.course.recorded_results import COMMAND_SECONDS, WHOLE_LESSON, RecordKey, read_results, write_record
from shared.course.run import RunRequest, run_lesson
from shared.errors import CourseError

KEY = RecordKey("cpu", "cpu")


def record_command_time(number: int) -> dict[str, int]:
    """Run the lesson's command, or one command per part, and return and record the seconds that each took.

    Raises CourseError when the lesson has no recorded results, and the errors of `run_lesson`.
    """
    lesson, folder = load_lesson(number)
    if str(KEY) not in read_results(folder):
        raise CourseError(f"lesson {number} has no results of the cpu preset yet: run `make results-{number}` first")
    seconds = {part: time_command(number, part) for part in lesson.parts or (WHOLE_LESSON,)}
    write_record(folder, KEY, read_results(folder)[str(KEY)] | {COMMAND_SECONDS: seconds})
    return seconds


def time_command(number: int, part: str) -> int:
    """Return the seconds that the lesson takes with seed 0; `part` is the name of a part or WHOLE_LESSON."""
    started = time.perf_counter()
    run_lesson(RunRequest(number, part=part or None))
    return round(time.perf_counter() - started)


@command_line("stopped; nothing is recorded")
def main() -> int:
    """Measure the lesson that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("lesson", help="the lesson's number")
    number = parse_whole_number("lesson", parser.parse_args().lesson)
    for part, seconds in record_command_time(number).items():
        print(f"make lesson-{number}{f' PART={part}' if part != WHOLE_LESSON else ''}: {seconds} s")
    write_readmes()
    return 0


if __name__ == "__main__":
    sys.exit(main())
