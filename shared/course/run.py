"""`make lesson-N`: train a lesson's arms, measure its claims, print the table, leave a report and figures.

python -m shared.course.run 1 --preset cpu --seeds 0 [--part NAME] [--data NAME] [--device cuda] [--resume]
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console

from shared.cli import command_line, parse_whole_number
from shared.course.claims import Verdict, claim_row, judge
from shared.course.lesson import PRESETS, ROOT, Lesson, Run, load_lesson
from shared.course.report import claims_table, draw, write_report
from shared.errors import CourseError

# One GPU is best used by one arm at a time; two cores by two.
WORKERS = {"cpu": 2, "cuda": 1}


def choose_device(asked: str | None, preset: str) -> str:
    """The GPU for the `gpu` preset, the CPU otherwise, unless one is asked for by name.

    Raises CourseError where a GPU is wanted and there is none.
    """
    device = asked or ("cuda" if preset == "gpu" else "cpu")
    if device not in ("cpu", "cuda"):
        raise CourseError(f"device {device!r} is not known; choose cpu or cuda")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise CourseError(
                f"{'DEVICE=cuda' if asked else 'PRESET=gpu'} needs a CUDA GPU and PyTorch {torch.__version__} sees none; "
                "use PRESET=cpu, or see what `make doctor` says of the GPU"
            )
    return device


def choose_data(asked: str | None, lesson: Lesson, preset: str) -> str:
    """The data set asked for, or the preset's own. Raises CourseError for one that the lesson does not know."""
    known = dict.fromkeys((*lesson.data_sets.values(), *lesson.other_data_sets))
    if not asked:
        return lesson.data_sets[preset]
    if asked in known or (asked.startswith("folder:") and "folder:PATH" in known):
        return asked
    raise CourseError(f"lesson {lesson.number} knows no data set {asked!r}; choose one of {', '.join(known)}")


def choose_part(asked: str | None, lesson: Lesson) -> str | None:
    """The part asked for, None for all of the lesson. Raises CourseError for one that it does not have."""
    if not asked or asked in lesson.parts:
        return asked or None
    has = f"choose one of {', '.join(lesson.parts)}" if lesson.parts else "it is of one piece: leave PART out"
    raise CourseError(f"lesson {lesson.number} has no part {asked!r}; {has}")


def train(
    number: int,
    preset: str,
    seeds: Sequence[int],
    *,
    part: str | None = None,
    data: str | None = None,
    device: str | None = None,
    resume: bool = False,
) -> Run:
    """Train every arm of a preset (or of one part of it) for every seed, each in a process of its own.

    Returns what they measured. Raises CourseError for an unknown lesson, preset, part, data set or device, before anything is trained.
    """
    lesson, folder = load_lesson(number)
    if preset not in PRESETS:
        raise CourseError(f"preset {preset!r} is not known; choose one of {', '.join(PRESETS)}")
    part = choose_part(part, lesson)
    data = choose_data(data, lesson, preset)
    device = choose_device(device, preset)
    arms = lesson.arms_of(preset, data, part)

    from shared.course.job_spec import Job
    from shared.course.jobs import run_jobs  # here, so that the errors above come before PyTorch is loaded

    own = data == lesson.data_sets[preset]
    place = ROOT / "runs" / folder.name / (preset if own else f"{preset}-{re.sub('[^a-zA-Z0-9]+', '-', data)}")
    jobs = [
        Job(
            name=f"{arm.name} (seed {seed})" if len(seeds) > 1 else arm.name,
            function=arm.function,
            arguments={**arm.presets[preset], "seed": seed, "data": data, "device": device},
            folder=place / f"seed-{seed}" / arm.name,
        )
        for seed in seeds
        for arm in arms
    ]
    results = iter(run_jobs(jobs, workers=WORKERS[device], resume=resume).values())
    measured = {seed: {arm.name: next(results) for arm in arms} for seed in seeds}
    return Run(preset, device, data, tuple(seeds), place, measured, part)


def verdicts(lesson: Lesson, run: Run) -> list[Verdict]:
    """Measure every claim that the run's arms can measure, and judge it where its threshold was made for such a run."""
    own = run.data == lesson.data_sets[run.preset]
    return [
        judge(claim, run.arms, judged=claim.kind == "exact" or (own and run.preset in claim.presets))
        for claim in lesson.claims_of(run.preset, run.data, run.part)
    ]


def run_lesson(number: int, preset: str, seeds: Sequence[int], **options) -> tuple[Lesson, Run, list[Verdict]]:
    """Train, judge, draw and report: the steps of `make lesson-N`, in order. Options and errors are those of `train`."""
    console = Console()
    started = time.monotonic()
    run = train(number, preset, seeds, **options)
    lesson, _ = load_lesson(number)
    found = verdicts(lesson, run)
    report = write_report(lesson, run, found, draw(lesson, run), time.monotonic() - started)
    console.print(claims_table(found))
    for verdict in found:
        if verdict.claim.reason and verdict.judged:
            console.print(f"[yellow]{verdict.claim.name}[/yellow]: {verdict.claim.reason}")
        if not verdict.as_expected:
            expected, measured = verdict.claim.expected, claim_row(verdict)["measured"]
            console.print(f"[bold red]{verdict.claim.name}[/bold red]: expected “{expected}”, measured {measured}")
    console.print(f"{time.monotonic() - started:.0f} s; report and figures: {report.relative_to(ROOT)}")
    return lesson, run, found


@command_line("stopped; the same command with RESUME=1 goes on from here")
def from_command_line(description: str, act: Callable[[int, str, list[int], dict], bool]) -> int:
    """Read the options, act, and return the status to exit with; an error for a person is one line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("lesson", help="the lesson's number")
    parser.add_argument("--preset", default="cpu", help=" | ".join(PRESETS))
    parser.add_argument("--seeds", nargs="+", default=["0"])
    parser.add_argument("--part", help="one part of a lesson that has several")
    parser.add_argument("--data", help="a data set that the lesson knows")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    given = parser.parse_args()
    number = parse_whole_number("lesson", given.lesson)
    seeds = [parse_whole_number("seed", seed) for seed in given.seeds]
    options = {"part": given.part, "data": given.data, "device": given.device, "resume": given.resume}
    return 0 if act(number, given.preset, seeds, options) else 1


def _act(number: int, preset: str, seeds: list[int], options: dict) -> bool:
    _, _, found = run_lesson(number, preset, seeds, **options)
    return all(verdict.as_expected for verdict in found)


if __name__ == "__main__":
    sys.exit(from_command_line(__doc__.splitlines()[0], _act))
