"""Read and write `results.json`: the measured values of every claim, per preset and device.

The file holds numbers only. Sentences, thresholds and the publication's numbers stand in the lesson's claims, so that
a page shows today's wording of a claim beside its recorded values.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.course.claims import Verdict
from shared.course.lesson import PRESETS, Lesson, Run
from shared.course.machine import describe_machine
from shared.errors import CourseError

COMMAND_SECONDS, WHOLE_LESSON = "command_seconds", ""
"""Key of a record's seconds of the command with one seed: by the names of the parts, or of the whole lesson."""


@dataclass(frozen=True)
class RecordKey:
    """What a record was measured with; its text, `preset/device` or `preset/device/data`, is its key in the file.

    data  None for the preset's own data set
    """

    preset: str
    device: str
    data: str | None = None

    @classmethod
    def parse(cls, text: str) -> "RecordKey":
        """Return the key of a record from its text."""
        preset, device, *data = text.split("/", 2)
        return cls(preset, device, data[0] if data else None)

    @classmethod
    def of_run(cls, run: Run, lesson: Lesson) -> "RecordKey":
        """Return the key of a run's record."""
        return cls(run.preset, run.device, None if run.data == lesson.data_sets[run.preset] else run.data)

    def __str__(self) -> str:
        return "/".join(part for part in (self.preset, self.device, self.data) if part)

    @property
    def label(self) -> str:
        """What tables print beside values of this record: "full", or "cpu, fashion_mnist"."""
        return f"{self.preset}, {self.data}" if self.data else self.preset


def read_results(folder: Path) -> dict[str, Any]:
    """Return a lesson's recorded results, the smallest preset first; empty when nothing is recorded."""
    path = folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return dict(sorted(results.items(), key=lambda item: PRESETS.index(RecordKey.parse(item[0]).preset)))


def recorded_values(folder: Path, key: RecordKey) -> dict[str, tuple[float, ...]]:
    """Return the recorded values of every claim by its name; empty when nothing was recorded with this key."""
    record = read_results(folder).get(str(key), {"claims": []})
    return {claim["name"]: tuple(claim["values"]) for claim in record["claims"]}


def recorded_verdicts(lesson: Lesson, key: str, record: Mapping[str, Any]) -> list[Verdict]:
    """Return the verdicts of a record, in the order of the lesson's claims.

    Raises CourseError when the record has claims that the lesson no longer has.
    """
    by_name = {claim["name"]: claim for claim in record["claims"]}
    if unknown := sorted(by_name.keys() - {claim.name for claim in lesson.claims}):
        raise CourseError(
            f"results.json of lesson {lesson.number} has values of {', '.join(unknown)}, which are no claims of the "
            f"lesson; measure again with `make results-{lesson.number}`"
        )
    record_key = RecordKey.parse(key)
    verdicts = []
    for claim in lesson.claims:
        if claim.name in by_name:
            values, baselines = (tuple(by_name[claim.name][name]) for name in ("values", "baselines"))
            judged = claim.kind == "exact" or (record_key.data is None and record_key.preset in claim.presets)
            verdicts.append(Verdict(claim, values, baselines, judged))
    return verdicts


def seconds_per_seed(lesson: Lesson, result: Mapping[str, Any], part: str | None) -> float:
    """Return the seconds per seed of all arms or one part's.

    They were read from a clock beside the command with one seed, or else are the sum over the arms, divided by the
    number of arms that run side by side.
    """
    by_part = result.get(COMMAND_SECONDS, {})
    if (part or WHOLE_LESSON) in by_part:
        return by_part[part or WHOLE_LESSON]
    if part is None and by_part:
        return sum(by_part.values())
    total = result["seconds"] / len(result["seeds"])
    if part is None:
        return total
    costs = {name: sum(arm["seconds"]) for name, arm in result["arms"].items()}
    part_cost = sum(costs[arm.name] for arm in lesson.arms if arm.part == part and arm.name in costs)
    return total * part_cost / sum(costs.values())


def result_record(run: Run, verdicts: Sequence[Verdict], workers: int) -> dict[str, Any]:
    """Return what `results.json` keeps of one preset on one device; `workers` arms ran side by side."""
    costs = {name: [run.arms[seed][name] for seed in run.seeds] for name in run.arms[run.seeds[0]]}
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "data": run.data,
        "seeds": list(run.seeds),
        # Summed over the arms, not read from a clock: a resumed run trains only what is left.
        "seconds": round(sum(cost["_seconds"] for each in costs.values() for cost in each) / workers),
        "machine": describe_machine(run.device),
        "claims": [
            {"name": verdict.claim.name, "values": verdict.values, "baselines": verdict.baselines}
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


def write_record(folder: Path, key: RecordKey, record: Mapping[str, Any]) -> None:
    """Write one record into a lesson's `results.json`, in place of an earlier one with the same key."""
    results = read_results(folder) | {str(key): record}
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
