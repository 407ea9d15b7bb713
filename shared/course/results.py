"""Measure a lesson over several seeds and record the results (`make results-N`).

Writes the lesson's `results.json` and figures and, from them, the generated parts of the lesson's README and of the
front page. Nothing else writes these. Results are keyed by preset and device, and by the data set if it is not the
preset's own.

    python -m shared.course.results 1 --preset cpu --seeds "0 1 2"
    python -m shared.course.results --readme        # write the generated parts again from the recorded results
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
from shared.course.run import WORKERS, RunRequest, from_command_line, run_lesson
from shared.errors import CourseError

MIN_SEEDS = 3


def record_results(request: RunRequest) -> bool:
    """Run a lesson, record its results and write the READMEs.

    Returns False, and records nothing, when a verdict is not the expected one. Raises CourseError for a run of one
    part or with fewer than MIN_SEEDS seeds.
    """
    if request.part:
        raise CourseError("results are measured for the whole lesson; leave PART out")
    if len(request.seeds) < MIN_SEEDS:
        raise CourseError(f'{len(request.seeds)} seed(s) given; results need at least {MIN_SEEDS}: SEEDS="0 1 2"')
    _, run, verdicts = run_lesson(request)
    if not all(verdict.as_expected for verdict in verdicts):
        print("nothing recorded: a verdict is not the expected one", file=sys.stderr)
        return False
    lesson, folder = load_lesson(request.lesson)
    write_results(folder, result_key(run, lesson), run, verdicts)
    write_readmes()
    return True


def result_key(run: Run, lesson: Lesson) -> str:
    """Return the key of a run in `results.json`: preset/device, and /data if it is not the preset's own data set."""
    key = f"{run.preset}/{run.device}"
    return key if run.data == lesson.data_sets[run.preset] else f"{key}/{run.data}"


def write_results(folder: Path, key: str, run: Run, verdicts: Sequence[Verdict]) -> None:
    """Copy the run's figures into the lesson's folder and write its record into results.json."""
    (folder / "figures").mkdir(exist_ok=True)
    figures = {}
    for path in sorted((run.folder / "figures").glob("*.png")):
        shutil.copyfile(path, folder / "figures" / path.name)
        figures[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    results = read_results(folder)
    results[key] = result_record(run, verdicts) | {"figures": figures}
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")


def result_record(run: Run, verdicts: Sequence[Verdict]) -> dict:
    """Return what `results.json` keeps of one preset on one device."""
    costs = {name: [run.arms[seed][name] for seed in run.seeds] for name in run.arms[run.seeds[0]]}
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "data": run.data,
        "seeds": list(run.seeds),
        # Summed over the arms, not read from a clock: a resumed run trains only what is left.
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
            for verdict in verdicts
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
        sys.exit(from_command_line(__doc__.splitlines()[0], record_results))
