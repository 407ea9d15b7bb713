"""Train a lesson's arms, measure its claims, print the claims table, and write a report and figures (`make lesson-N`).

python -m shared.course.run 1 --preset cpu --seeds "0 1 2" [--part NAME] [--data NAME] [--device cuda] [--resume]
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from shared.cli import command_line, parse_whole_number
from shared.course.claims import Verdict, format_mean, judge
from shared.course.lesson import PRESETS, ROOT, Lesson, Run, load_lesson
from shared.course.recorded_results import RecordKey, recorded_values
from shared.course.report import draw_figures, write_report
from shared.course.tables import terminal_results
from shared.errors import CourseError

# A GPU is used best by one arm at a time; two cores by two arms.
WORKERS = {"cpu": 2, "cuda": 1}
GREATEST_SEED = 2**32 - 1  # of NumPy; PyTorch's is larger


@dataclass(frozen=True)
class RunRequest:
    """The options of `make lesson-N`.

    preset  one of PRESETS
    seeds   every arm is trained once per seed
    part    the part to run; None runs all of them
    data    the data set; None is the preset's own
    device  "cpu" or "cuda"; None is the preset's own
    resume  whether to continue an interrupted run instead of starting over
    """

    lesson: int
    preset: str = "cpu"
    seeds: Sequence[int] = (0,)
    part: str | None = None
    data: str | None = None
    device: str | None = None
    resume: bool = False


def choose_device(device: str | None, preset: str) -> str:
    """Return the requested device, or else the GPU for the `gpu` preset and the CPU for all others.

    Raises CourseError when the device is unknown or there is no GPU.
    """
    chosen = device or ("cuda" if preset == "gpu" else "cpu")
    if chosen not in ("cpu", "cuda"):
        raise CourseError(f"device {chosen!r} is unknown; choose cpu or cuda")
    if chosen == "cuda":
        import torch

        if not torch.cuda.is_available():
            option = "DEVICE=cuda" if device else "PRESET=gpu"
            raise CourseError(
                f"{option} needs a CUDA GPU and PyTorch {torch.__version__} finds none; "
                "use PRESET=cpu, or run `make doctor` to check the GPU"
            )
    return chosen


def choose_data(data: str | None, lesson: Lesson, preset: str) -> str:
    """Return the requested data set, or else the preset's own. Raises CourseError for one that the lesson lacks."""
    supported = dict.fromkeys((*lesson.data_sets.values(), *lesson.other_data_sets))
    if not data:
        return lesson.data_sets[preset]
    if data in supported or (data.startswith("folder:") and "folder:PATH" in supported):
        return data
    raise CourseError(f"lesson {lesson.number} has no data set {data!r}; choose one of {', '.join(supported)}")


def choose_part(part: str | None, lesson: Lesson) -> str | None:
    """Return the requested part, None for the whole lesson. Raises CourseError when the lesson has no such part."""
    if not part or part in lesson.parts:
        return part or None
    advice = f"choose one of {', '.join(lesson.parts)}" if lesson.parts else "it has no parts: leave PART out"
    raise CourseError(f"lesson {lesson.number} has no part {part!r}; {advice}")


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that `text` lists. Raises CourseError for none, one that is given twice, or an unusable one."""
    seeds = [parse_whole_number("seed", word, least=0, most=GREATEST_SEED) for word in text.split()]
    if not seeds:
        raise CourseError('no seed is given; give one, as SEED=0, or several, as SEED="0 1 2"')
    if repeated := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise CourseError(f"seed {repeated[0]} is given twice; every seed is one run, so give different ones")
    return seeds


def train_arms(request: RunRequest) -> Run:
    """Train every arm of the requested preset for every seed, each in its own process, and return the measurements.

    Raises CourseError for an unknown lesson, preset, part, data set or device, before any training starts.
    """
    lesson, folder = load_lesson(request.lesson)
    preset, seeds = request.preset, tuple(request.seeds)
    if preset not in PRESETS:
        raise CourseError(f"preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}")
    part = choose_part(request.part, lesson)
    data = choose_data(request.data, lesson, preset)
    device = choose_device(request.device, preset)
    arms = lesson.arms_of(preset, data, part)

    from shared.course.job_spec import Job
    from shared.course.jobs import run_jobs  # imported late: errors above are printed before PyTorch is loaded

    default_data = data == lesson.data_sets[preset]
    name = preset if default_data else f"{preset}-{re.sub('[^a-zA-Z0-9]+', '-', data)}"
    run_folder = ROOT / "runs" / folder.name / name

    def job_name(arm: str, seed: int) -> str:
        return f"{arm} (seed {seed})" if len(seeds) > 1 else arm

    jobs = [
        Job(
            name=job_name(arm.name, seed),
            function=arm.function,
            arguments={**arm.presets[preset], "seed": seed, "data": data, "device": device},
            folder=run_folder / f"seed-{seed}" / arm.name,
            after=tuple(job_name(name, seed) for name in arm.after),
        )
        for seed in seeds
        for arm in arms
    ]
    results = iter(run_jobs(jobs, workers=WORKERS[device], resume=request.resume).values())
    measurements = {seed: {arm.name: next(results) for arm in arms} for seed in seeds}
    return Run(preset, device, data, seeds, run_folder, measurements, part)


def judge_claims(lesson: Lesson, run: Run) -> list[Verdict]:
    """Measure every claim that the run's arms can measure; judge it if its threshold was calibrated for such a run."""
    default_data = run.data == lesson.data_sets[run.preset]
    _, folder = load_lesson(lesson.number)
    recorded = recorded_values(folder, RecordKey.of_run(run, lesson))
    return [
        judge(
            claim,
            run.arms,
            judged=claim.kind == "exact" or (default_data and run.preset in claim.presets),
            recorded=recorded.get(claim.name, ()),
        )
        for claim in lesson.claims_of(run.preset, run.data, run.part)
    ]


def run_lesson(request: RunRequest) -> tuple[Lesson, Run, list[Verdict]]:
    """Train, judge, print, draw and report: the steps of `make lesson-N`. Raises the errors of `train_arms`."""
    started = time.monotonic()
    run = train_arms(request)
    lesson, _ = load_lesson(request.lesson)
    verdicts = judge_claims(lesson, run)
    console = Console()
    console.print(terminal_results(verdicts))
    for verdict in verdicts:
        if verdict.claim.hypothesis and verdict.judged:
            console.print(f"[yellow]{verdict.claim.name}[/yellow] (not reproduced): {verdict.claim.hypothesis}")
        if not verdict.as_expected:
            console.print(
                f"[bold red]{verdict.claim.name}[/bold red]: recorded as {verdict.claim.expected}, "
                f"measured {format_mean(verdict)}"
            )
    # What has been measured is printed by now, whatever happens to the figures and the report.
    report = write_report(lesson, run, verdicts, draw_figures(lesson, run), time.monotonic() - started)
    console.print(f"{time.monotonic() - started:.0f} s; report and figures: {report.relative_to(ROOT)}")
    return lesson, run, verdicts


@command_line("stopped; the same command with RESUME=1 continues from here")
def from_command_line(description: str, command: Callable[[RunRequest], bool]) -> int:
    """Parse the options, run `command`, and return the exit status: 0 when the command returned True, else 1."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("lesson", help="the lesson's number")
    parser.add_argument("--preset", default="cpu", help=" | ".join(PRESETS))
    parser.add_argument("--seeds", nargs="*", default=["0"], help="one or several")
    parser.add_argument("--part", help="one part of a lesson with several parts")
    parser.add_argument("--data", help="another data set of the lesson")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    options = parser.parse_args()
    request = RunRequest(
        lesson=parse_whole_number("lesson", options.lesson),
        preset=options.preset,
        seeds=parse_seeds(" ".join(options.seeds)),
        part=options.part,
        data=options.data,
        device=options.device,
        resume=options.resume,
    )
    return 0 if command(request) else 1


def run_and_check(request: RunRequest) -> bool:
    """Run a lesson and return whether every verdict is the expected one."""
    _, _, verdicts = run_lesson(request)
    return all(verdict.as_expected for verdict in verdicts)


if __name__ == "__main__":
    sys.exit(from_command_line(__doc__.splitlines()[0], run_and_check))
