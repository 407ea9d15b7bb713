"""`make results-N`: measure a lesson over several seeds and write what the course then shows of it.

Writes the lesson's `results.json` (keyed by preset and device) and figures, and from them the generated parts of
the lesson's README and of the front page. Nothing else writes these.

    python -m shared.course.results 1 --preset cpu --seeds 0 1 2
    python -m shared.course.results --readme        # write the generated parts again from what is recorded
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from shared.course.lesson import Lesson, Run
from shared.course.machine import describe
from shared.course.readme import write_readmes
from shared.course.run import parser, run_lesson, whole_number
from shared.course.verdicts import Verdict, row
from shared.errors import CourseError

LEAST_SEEDS = 3


def read_results(folder: Path) -> dict:
    """A lesson's recorded results; empty when none are recorded yet."""
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def record(run: Run, found: Sequence[Verdict], figures: Sequence[Path], seconds: float) -> dict:
    """What `results.json` keeps of one preset on one device."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "data": run.data,
        "seeds": list(run.seeds),
        "seconds": round(seconds),
        "machine": describe(run.device),
        "claims": [
            {"name": verdict.claim.name, **row(verdict), "values": verdict.values, "baselines": verdict.baselines, "expected": verdict.claim.expected, "reason": verdict.claim.reason}
            for verdict in found
        ],
        "arms": {
            name: {"seconds": [run.arms[seed][name]["_seconds"] for seed in run.seeds], "peak_memory_mb": max(run.arms[seed][name]["_peak_memory_mb"] for seed in run.seeds)}
            for name in run.arms[run.seeds[0]]
        },
        "figures": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in figures},
    }  # fmt: skip


def measure(lesson_number: int, preset: str, seeds: Sequence[int], **options) -> bool:
    """Run, record, and write the READMEs; False when a verdict is not the expected one (nothing is recorded then)."""
    if len(seeds) < LEAST_SEEDS:
        raise CourseError(f'{len(seeds)} seed(s) given; results take at least {LEAST_SEEDS}: SEEDS="0 1 2"')
    from shared.course.lesson import load_lesson

    started = time.monotonic()
    lesson, run, found = run_lesson(lesson_number, preset, seeds, **options)
    if not all(verdict.as_expected for verdict in found):
        print("nothing recorded: a verdict is not the expected one", file=sys.stderr)
        return False
    folder = load_lesson(lesson_number)[1]
    keep(lesson, folder, run, found, time.monotonic() - started)
    write_readmes()
    return True


def keep(lesson: Lesson, folder: Path, run: Run, found: Sequence[Verdict], seconds: float) -> None:
    """Lay the figures into the lesson and the record into its results.json."""
    figures = []
    (folder / "figures").mkdir(exist_ok=True)
    for path in sorted((run.folder / "figures").glob("*.png")):
        figures.append(folder / "figures" / path.name)
        shutil.copyfile(path, figures[-1])
    results = read_results(folder)
    results[f"{run.preset}/{run.device}"] = record(run, found, figures, seconds)
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    if sys.argv[1:] == ["--readme"]:
        write_readmes()
        return 0
    arguments = parser(__doc__.splitlines()[0]).parse_args()
    try:
        good = measure(
            whole_number(arguments.lesson, "lesson"), arguments.preset, [whole_number(seed, "seed") for seed in arguments.seeds],
            data=arguments.data, device=arguments.device, resume=arguments.resume,
        )  # fmt: skip
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command with RESUME=1 goes on from here", file=sys.stderr)
        return 130
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
