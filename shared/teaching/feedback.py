"""The feedback page of a student, as Markdown and as a web page that needs no other file."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from shared.teaching.exercise_result import ExerciseResult
from shared.teaching.markers import ExerciseInfo
from shared.teaching.run_tests import NOT_STARTED

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{border:1px solid #888;padding:.2em .6em;text-align:left}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid #888;padding:.6em}"
    ":root{color-scheme:light dark}"
)


@dataclass(frozen=True)
class ExerciseFeedback:
    """Hold the feedback on one exercise.

    tests        passed tests, as "3 of 4"
    worth        points, as "2 of 3"
    failed_test  the first test that failed; empty when none failed or none ran
    message      of the failed test, or why none ran
    """

    number: str
    title: str
    tests: str
    worth: str
    solved: bool
    failed_test: str = ""
    message: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Feedback:
    """Hold the feedback for one student; `late` is empty or a sentence on what lateness costs."""

    heading: str
    total: str
    late: str
    exercises: tuple[ExerciseFeedback, ...]


def exercise_feedback(number: str, result: ExerciseResult, info: ExerciseInfo, worth: str) -> ExerciseFeedback:
    """Return the feedback on one exercise. A hint is for exercises that were started and are not solved."""
    tests = f"{result.passed} of {result.tests}"
    hint = "" if result.solved or result.message == NOT_STARTED else info.hint
    return ExerciseFeedback(number, info.title, tests, worth, result.solved, result.failed_test, result.message, hint)


def markdown_page(feedback: Feedback) -> str:
    """Return the page as Markdown."""
    lines = [f"# {feedback.heading}", "", f"**{feedback.total} points**", ""]
    if feedback.late:
        lines += [feedback.late, ""]
    lines += ["| exercise | | tests passed | points |", "|---|---|---|---|"]
    lines += [f"| {each.number} | {each.title} | {each.tests} | {each.worth} |" for each in feedback.exercises]
    for each in feedback.exercises:
        if each.solved:
            continue
        lines += ["", f"## {each.number}: {each.title}", ""]
        if each.failed_test:
            # Indented by four, the message of a student's code cannot be Markdown of this page.
            lines += [f"The first test that failed is `{each.failed_test}`:", "", f"    {each.message}"]
        else:
            lines += [f"{each.message}."]
        if each.hint:
            lines += ["", f"A hint: {each.hint}"]
    return "\n".join(lines) + "\n"


def web_page(feedback: Feedback) -> str:
    """Return the page as HTML. Every text is escaped, since messages and names come from students."""
    cells = [(each.number, each.title, each.tests, each.worth) for each in feedback.exercises]
    rows = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>\n" for row in cells)
    late = f"<p>{escape(feedback.late)}</p>\n" if feedback.late else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>{escape(feedback.heading)}</title>\n'
        f"<style>{STYLE}</style>\n<h1>{escape(feedback.heading)}</h1>\n"
        f"<p><strong>{escape(feedback.total)} points</strong></p>\n{late}"
        "<table><tr><th>exercise<th>title<th>tests passed<th>points</tr>\n"
        f"{rows}</table>\n{''.join(_section(each) for each in feedback.exercises if not each.solved)}</html>\n"
    )


def _section(each: ExerciseFeedback) -> str:
    heading = f"<h2>{escape(each.number)}: {escape(each.title)}</h2>\n"
    reason = f"<p>{escape(each.message)}.</p>\n"
    if each.failed_test:
        test = f"<code>{escape(each.failed_test)}</code>"
        reason = f"<p>The first test that failed is {test}:</p>\n<pre>{escape(each.message)}</pre>\n"
    hint = f"<p>A hint: {escape(each.hint)}</p>\n" if each.hint else ""
    return heading + reason + hint


def feedback_of(
    heading: str,
    total: str,
    late: str,
    results: Mapping[str, ExerciseResult],
    table: Mapping[str, ExerciseInfo],
    worth: Mapping[str, str],
) -> Feedback:
    """Return the feedback for one student; `worth` has the points of each exercise, as "2 of 3"."""
    exercises = (exercise_feedback(number, result, table[number], worth[number]) for number, result in results.items())
    return Feedback(heading, total, late, tuple(exercises))
