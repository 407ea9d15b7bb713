"""`make grade-N SUBMISSION=…`: grade one submission of lesson N, or a folder of many.

python -m shared.teaching.grade 1 SUBMISSION [--workers 2] [--out grades/lesson_01_vit]
"""

import argparse
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.atomic import write_atomically
from shared.cli import command_line, parse_whole_number
from shared.course.job_start import stop_with_parent
from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching import gradebook
from shared.teaching.class_folder import HandIn, find_submissions
from shared.teaching.course_settings import PATH, Assignment, load_assignment
from shared.teaching.exercise_result import ExerciseResult
from shared.teaching.exports import Column, write_exports
from shared.teaching.grading_copy import course_files
from shared.teaching.history import HISTORY, keep_earlier_grades
from shared.teaching.isolation.sandbox import Limits
from shared.teaching.isolation.student_process import StudentProcess
from shared.teaching.lateness import TIMES, handed_in_times, lateness
from shared.teaching.markers import exercise_folder, exercise_table, exercise_tests, exercises_of
from shared.teaching.roster import missing_students, read_roster
from shared.teaching.run_tests import Conditions, find_conditions, fork_server, printable, run_tests
from shared.teaching.submission import NOT_HANDED_IN, Submission, read_submission, submission_names

SECRET_SEED = "secret_seed.txt"

Results = dict[str, ExerciseResult]
"""Exercise → result, of one submission."""


def protections() -> dict[str, bool]:
    """Return which protections against students' code hold on this machine, determined by trying."""
    with tempfile.TemporaryDirectory(prefix="grading-") as course_copy:
        process = StudentProcess(fork_server(), Path(course_copy), "", [], Limits())
        try:
            return process.probe_protections()
        finally:
            process.stop()


def fingerprint(lesson: int, submission: Submission, limits: Limits, seed: int | None) -> str:
    """Return a hash of everything that a result depends on: submission, solution, tests, limits, random inputs."""
    tests = [path.read_text(encoding="utf-8") for path in exercise_tests(exercise_folder(lesson))]
    inputs = [submission.files, submission.problems, tests, repr(limits), seed, torch.__version__]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    for path, content in sorted(course_files(lesson).items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def secret_seed(folder: Path) -> int:
    """Return the seed of the tests' random inputs for this folder of grades; drawn once, so that grading continues."""
    path = folder / SECRET_SEED
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text(encoding="utf-8"))
    seed = secrets.randbelow(2**62)
    write_atomically(path, f"{seed}\n".encode())
    return seed


def _use_one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def grade(
    lesson: int, submissions: Sequence[Submission], limits: Limits, folder: Path, workers: int, console: Console
) -> dict[str, Results]:
    """Grade submissions, `workers` at a time, and save each result at once. Return student → exercise → result.

    Results of an earlier call are used again for submissions of which nothing has changed.
    """
    seed = secret_seed(folder)
    results, remaining = {}, []
    for submission in submissions:
        saved = _load_result(_result_path(folder, submission), fingerprint(lesson, submission, limits, seed))
        if saved is None:
            remaining.append(submission)
        else:
            results[submission.name] = saved
    if remaining:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("grading", total=len(submissions), completed=len(results))
            conditions = find_conditions(lesson, limits, seed)
            if conditions.seed is None:
                console.print("the solution fails with fresh inputs: graded with the inputs that students see")
            for submission, result in _run_in_parallel(lesson, remaining, conditions, workers):
                exercises = {number: asdict(each) for number, each in result.items()}
                record = {"fingerprint": fingerprint(lesson, submission, limits, seed), "exercises": exercises}
                text = json.dumps(record, indent=1, ensure_ascii=False)
                write_atomically(_result_path(folder, submission), text.encode())
                results[submission.name] = result
                progress.advance(bar)
    return {submission.name: results[submission.name] for submission in submissions}


def _result_path(folder: Path, submission: Submission) -> Path:
    return folder / "results" / f"{submission.name}.json"


def _load_result(path: Path, expected_fingerprint: str) -> Results | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("fingerprint") != expected_fingerprint:
            return None
        return {number: ExerciseResult(**fields) for number, fields in record["exercises"].items()}
    except (OSError, ValueError, TypeError):
        return None  # missing, incomplete, or written by another version


def _run_in_parallel(
    lesson: int, submissions: Sequence[Submission], conditions: Conditions, workers: int
) -> Iterator[tuple[Submission, Results]]:
    """Yield each submission with its results as soon as they are complete."""
    if min(workers, len(submissions)) == 1:
        for submission in submissions:
            yield submission, run_tests(lesson, submission, conditions)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, len(submissions)), mp_context=context, initializer=_start_worker, initargs=(os.getpid(),)
    )
    try:
        futures = {pool.submit(run_tests, lesson, each, conditions): each for each in submissions}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(grader: int) -> None:
    """Prepare a process of the pool: one thread, and no life after the grader's."""
    stop_with_parent(grader)
    signal.signal(signal.SIGTERM, _interrupt)
    _use_one_thread()


def _interrupt(number: int, frame: object) -> None:
    """Answer SIGTERM as Ctrl-C, so that students' processes end and their folders are removed."""
    raise KeyboardInterrupt


def days_late_of(
    place: Path, hand_ins: Sequence[HandIn], names: Sequence[str], assignment: Assignment
) -> tuple[dict[str, int], list[str]]:
    """Return submission → days late, and a line for those whose time is not stated, which count as in time."""
    times = handed_in_times(place)
    days = {
        name: lateness(each, times, assignment.due, assignment.late) for name, each in zip(names, hand_ins, strict=True)
    }
    unstated = [name for name, value in days.items() if value is None]
    notes = []
    if unstated and assignment.late.percent_per_day:
        notes = [f"when {', '.join(unstated)} handed in is not stated in {TIMES}: counted as in time"]
    return {name: value or 0 for name, value in days.items()}, notes


def nothing_handed_in(lesson: int) -> Results:
    """Return the results of a student who handed in nothing."""
    return {each.number: ExerciseResult(message=f"{each.path.name} {NOT_HANDED_IN}") for each in exercises_of(lesson)}


def grade_all(
    number: int, place: Path, folder: Path | None, workers: int, console: Console, settings: Path
) -> dict[str, Results]:
    """Do all of `make grade-N`. Return student → exercise → result. Raises CourseError for errors of the user."""
    lesson = exercise_folder(number)
    assignment, table = load_assignment(number, lesson, settings), exercise_table(lesson)
    roster = read_roster(place)
    folder = folder or ROOT / "grades" / lesson.name
    entries = find_submissions(place, lesson.name)
    paths = sorted({exercise.path.relative_to(ROOT).as_posix() for exercise in exercises_of(number)})
    submissions = [
        read_submission(each.place, name, lesson.name, paths)
        for each, name in zip(
            entries.hand_ins, submission_names([each.student for each in entries.hand_ins]), strict=True
        )
    ]
    late, late_notes = days_late_of(place, entries.hand_ins, [each.name for each in submissions], assignment)
    notes = [*entries.notes, *late_notes, *(f"{each.name}: {each.note}" for each in submissions if each.note)]
    for note in notes:
        console.print(escape(printable(note)), soft_wrap=True, highlight=False)
    enforced = protections()
    console.print(f"students' code is denied: {', '.join(name for name, holds in enforced.items() if holds)}")
    if missing := [name for name, holds in enforced.items() if not holds]:
        console.print(
            f"[bold yellow]not enforced on this machine: {', '.join(missing)}[/] (see shared/teaching/README.md)"
        )
    results = grade(number, submissions, assignment.limits, folder, workers, console)
    results |= {name: nothing_handed_in(number) for name in missing_students(roster, results)}
    totals = gradebook.totals(results, assignment, late)
    changes = keep_earlier_grades(folder, totals)
    gradebook.write(folder, lesson.name, results, assignment, table, enforced, late)
    console.print(gradebook.grade_table(results, assignment, late))
    possible = sum(assignment.points[exercise.number] for exercise in exercises_of(number))
    if changes:
        console.print(f"changed since the last grading, which is now in {folder / HISTORY}:", soft_wrap=True)
        console.print(escape("\n".join(changes)), highlight=False)
    files = ["grades.csv", "grades.json", *write_exports(folder, Column(lesson.name, possible), totals, roster)]
    console.print(f"{', '.join(files)} and a feedback page per submission: {folder}", soft_wrap=True)
    return results


@command_line("stopped; run the same command again to continue")
def main() -> int:
    parser = argparse.ArgumentParser(description="Grade one submission of a lesson, or a folder of many.")
    parser.add_argument("lesson", help="the lesson's number")
    parser.add_argument("submission", nargs="?", default="", help="a folder, a zip, or a folder of many")
    parser.add_argument(
        "--workers",
        type=functools.partial(parse_whole_number, "workers"),
        default=2,
        help="submissions that are graded in parallel",
    )
    parser.add_argument("--out", type=Path, help="where to write (default: grades/LESSON)")
    parser.add_argument("--settings", type=Path, default=PATH, help="another course.toml")
    options = parser.parse_args()
    if not options.submission:
        raise CourseError(
            "no submission is named: "
            f"make grade-{options.lesson} SUBMISSION=path (a folder, a zip, or a folder of many)"
        )
    signal.signal(signal.SIGTERM, _interrupt)
    number = parse_whole_number("lesson", options.lesson)
    workers = max(options.workers, 1)
    grade_all(number, Path(options.submission), options.out, workers, Console(), options.settings)
    return 0


if __name__ == "__main__":
    _use_one_thread()
    sys.exit(main())
