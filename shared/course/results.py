"""`make results-N`: measure a lesson over several seeds and write what the course then shows of it.

Writes the lesson's `results.json` (keyed by preset and device, and the data set where another was asked for) and figures, and from them the generated parts of
the lesson's README and of the front page. Nothing else writes these.

    python -m shared.course.results 1 --preset cpu --seeds 0 1 2
    python -m shared.course.results --readme        # write the generated parts again from what is recorded
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from shared.course.claims import Verdict, claim_row
from shared.course.lesson import Lesson, Run, load_lesson
from shared.course.machine import describe_machine
from shared.course.readme import read_results, write_readmes
from shared.course.run import WORKERS, from_command_line, run_lesson
from shared.errors import CourseError

LEAST_SEEDS = 3


def measure(number: int, preset: str, seeds: Sequence[int], options: dict) -> bool:
    """Run, record, and write the READMEs; False, and nothing recorded, when a verdict is not the expected one."""
    if options.get("part"):
        raise CourseError("results are of a whole lesson; leave PART out")
    if len(seeds) < LEAST_SEEDS:
        raise CourseError(f'{len(seeds)} seed(s) given; results take at least {LEAST_SEEDS}: SEEDS="0 1 2"')
    _, run, found = run_lesson(number, preset, seeds, **options)
    if not all(verdict.as_expected for verdict in found):
        print("nothing recorded: a verdict is not the expected one", file=sys.stderr)
        return False
    lesson, folder = load_lesson(number)
    keep(folder, key_of(run, lesson), run, found)
    write_readmes()
    return True


def key_of(run: Run, lesson: Lesson) -> str:
    """Under what a run is recorded: preset/device, and the data set where it is not the preset's own."""
    key = f"{run.preset}/{run.device}"
    return key if run.data == lesson.data_sets[run.preset] else f"{key}/{run.data}"


def keep(folder: Path, key: str, run: Run, found: Sequence[Verdict]) -> None:
    """Lay the figures into the lesson and the record into its results.json."""
    (folder / "figures").mkdir(exist_ok=True)
    figures = {}
    for path in sorted((run.folder / "figures").glob("*.png")):
        shutil.copyfile(path, folder / "figures" / path.name)
        figures[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    results = read_results(folder)
    results[key] = record(run, found) | {"figures": figures}
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")


def record(run: Run, found: Sequence[Verdict]) -> dict:
    """What `results.json` keeps of one preset on one device."""
    costs = {name: [run.arms[seed][name] for seed in run.seeds] for name in run.arms[run.seeds[0]]}
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "data": run.data,
        "seeds": list(run.seeds),
        # Of the arms, not of the clock: a resumed run trains only what is left.
        "seconds": round(sum(cost["_seconds"] for each in costs.values() for cost in each) / WORKERS[run.device]),
        "machine": describe_machine(run.device),
        "claims": [
            {
                "name": verdict.claim.name,
                **claim_row(verdict),
                "values": verdict.values,
                "baselines": verdict.baselines,
                "reason": verdict.claim.reason,
            }
            for verdict in found
        ],
        "arms": {
            name: {
                "seconds": [round(cost["_seconds"], 1) for cost in each],
                "peak_memory_mb": round(max(cost["_peak_memory_mb"] for cost in each)),
            }
            for name, each in costs.items()
        },
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["--readme"]:
        write_readmes()
    else:
        sys.exit(from_command_line(__doc__.splitlines()[0], measure))
