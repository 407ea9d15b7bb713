"""`make grade-N SUBMISSION=…`: grade one submission of lesson N, or a folder of many.

python -m shared.teaching.grade 1 SUBMISSION [--workers 2] [--out grades/lesson_01_vit]
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.atomic import write_atomically
from shared.cli import command_line, parse_whole_number
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching import gradebook
from shared.teaching.course_settings import PATH, assignment
from shared.teaching.grading_copy import course_files
from shared.teaching.isolation.sandbox import Limits
from shared.teaching.isolation.student_process import StudentProcess
from shared.teaching.markers import exercise_folder, exercise_tests, exercises_of, listed
from shared.teaching.run_tests import calibrate, examine, nursery
from shared.teaching.submission import Submission, find_submissions, names, read_submission


def protections() -> dict[str, bool]:
    """What a student's process can't do on this machine, found out by trying."""
    with tempfile.TemporaryDirectory(prefix="grading-") as tree:
        process = StudentProcess(nursery(), Path(tree), "", [], Limits())
        try:
            return process.trial()
        finally:
            process.stop()


def fingerprint(number: int, submission: Submission, limits: Limits) -> str:
    """A hash of all that a result depends on: what was handed in, the solution, the tests, the limits."""
    tests = [path.read_text(encoding="utf-8") for path in exercise_tests(exercise_folder(number))]
    own = [submission.files, submission.problems, tests, repr(limits), torch.__version__]
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    for path, content in sorted(course_files(number).items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def grade(
    number: int, submissions: Sequence[Submission], limits: Limits, folder: Path, workers: int, console: Console
) -> dict[str, dict]:
    """Grade every submission, a few side by side, and keep each result as it comes: student → exercise → what was found.

    What an earlier call has graded and nothing has changed since is not graded again.
    """
    results, waiting = {}, []
    for submission in submissions:
        path = folder / "results" / f"{submission.name}.json"
        kept = _kept(path, fingerprint(number, submission, limits))
        if kept is None:
            waiting.append(submission)
        else:
            results[submission.name] = kept
    if waiting:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("grading", total=len(submissions), completed=len(results))
            needed = calibrate(number, limits)
            for submission, found in _side_by_side(number, waiting, limits, needed, workers):
                kept = {"fingerprint": fingerprint(number, submission, limits), "exercises": found}
                path = folder / "results" / f"{submission.name}.json"
                write_atomically(path, json.dumps(kept, indent=1, ensure_ascii=False).encode())
                results[submission.name] = found
                progress.advance(bar)
    return {submission.name: results[submission.name] for submission in submissions}


def _kept(path: Path, wanted: str) -> dict | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept["exercises"] if kept.get("fingerprint") == wanted else None


def _side_by_side(number: int, waiting: Sequence[Submission], limits: Limits, needed: Mapping, workers: int):
    if min(workers, len(waiting)) == 1:
        for submission in waiting:
            yield submission, examine(number, submission, limits, needed)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(waiting)), mp_context=context, initializer=_one_thread)
    try:
        running = {pool.submit(examine, number, submission, limits, needed): submission for submission in waiting}
        for future in as_completed(running):
            yield running[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def grade_all(number: int, place: Path, folder: Path | None, workers: int, console: Console, settings: Path) -> dict:
    """All of `make grade-N`; returns student → exercise → what was found. Raises CourseError for what a person can mend."""
    lesson = exercise_folder(number)
    given, pages = assignment(number, lesson, settings), listed(lesson)
    folder = folder or ROOT / "grades" / lesson.name
    found = find_submissions(place, lesson.name)
    wanted = sorted({str(exercise.path.relative_to(ROOT)) for exercise in exercises_of(number)})
    submissions = [
        read_submission(path, name, lesson.name, wanted) for path, name in zip(found, names(found), strict=True)
    ]
    held = protections()
    missing = [what for what, holds in held.items() if not holds]
    console.print(f"kept from students' code: {', '.join(what for what, holds in held.items() if holds)}")
    if missing:
        console.print(
            f"[bold yellow]not enforced on this machine: {', '.join(missing)}[/] (see shared/teaching/README.md)"
        )
    results = grade(number, submissions, given.limits, folder, workers, console)
    gradebook.write(folder, lesson.name, results, given, pages, held)
    console.print(gradebook.table(results, given))
    console.print(f"grades.csv, grades.json and a page of feedback for each: {folder}", soft_wrap=True)
    return results


@command_line("stopped; the same command goes on from here")
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lesson", help="the lesson's number")
    parser.add_argument("submission", nargs="?", default="", help="a folder, a zip, or a folder of many")
    parser.add_argument("--workers", type=int, default=2, help="submissions graded side by side")
    parser.add_argument("--out", type=Path, help="where to write (default: grades/LESSON)")
    parser.add_argument("--settings", type=Path, default=PATH, help="another course.toml")
    given = parser.parse_args()
    if not given.submission:
        raise CourseError(
            f"what is to be graded? make grade-{given.lesson} SUBMISSION=path (a folder, a zip, or a folder of many)"
        )
    number = parse_whole_number("lesson", given.lesson)
    grade_all(number, Path(given.submission), given.out, max(given.workers, 1), Console(), given.settings)
    return 0


if __name__ == "__main__":
    _one_thread()
    sys.exit(main())
