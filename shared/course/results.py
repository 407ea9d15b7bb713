"""Measure a lesson over several seeds and record the results (`make results-N`).

Writes the lesson's `results.json` and figures and, from them, the generated parts of the lesson's README and of the
front page. Nothing else writes these. Results are keyed by preset and device, and by the data set if it is not the
preset's own.

    python -m shared.course.results 1 --preset cpu --seeds "0 1 2"
    python -m shared.course.results --readme        # write the generated parts again from the recorded results
"""

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.course.claims import Verdict, format_mean
from shared.course.lesson import Run, load_lesson
from shared.course.readme import write_readmes
from shared.course.recorded_results import RecordKey, result_record, write_record
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
    different = [verdict for verdict in verdicts if verdict.judged and verdict.label != verdict.claim.expected]
    for verdict in different:
        name, expected = verdict.claim.name, verdict.claim.expected
        print(f"{name}: {verdict.label} ({format_mean(verdict)}), expected {expected}", file=sys.stderr)
    if different:
        print("nothing recorded: change the experiment, add seeds, or change `expected`", file=sys.stderr)
        return False
    lesson, folder = load_lesson(request.lesson)
    write_results(folder, RecordKey.of_run(run, lesson), run, verdicts)
    write_readmes()
    return True


def write_results(folder: Path, key: RecordKey, run: Run, verdicts: Sequence[Verdict]) -> None:
    """Copy the run's figures into the lesson's folder and write its record into results.json."""
    (folder / "figures").mkdir(exist_ok=True)
    figures = {}
    for path in sorted((run.folder / "figures").glob("*.png")):
        shutil.copyfile(path, folder / "figures" / path.name)
        figures[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    record = result_record(run, verdicts, WORKERS[run.device])
    write_record(folder, key, record | {"figures": figures})


if __name__ == "__main__":
    if sys.argv[1:] == ["--readme"]:
        write_readmes()
    else:
        sys.exit(from_command_line(__doc__.splitlines()[0], record_results))
