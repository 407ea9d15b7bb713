"""Compares what a run has left in its folder with what an uninterrupted one has left."""

import json
from pathlib import Path

import safetensors

from shared.errors import CourseError
from shared.training import read_metrics
from shared.training.checkpoint import FILE_NAME, PREVIOUS_NAME, read_checkpoint


def find_damage(folder: Path) -> list[str]:
    """Return what is wrong with the checkpoints in `folder`."""
    faults = []
    for name in (FILE_NAME, PREVIOUS_NAME):
        if (folder / name).exists():
            try:
                read_checkpoint(folder / name)
            except CourseError as error:
                faults.append(str(error).replace(str(folder), "…"))
    return faults


def find_differences(folder: Path, reference: Path) -> list[str]:
    """Compare the end of a run with that of `reference`, byte for byte, and return a description of each difference."""
    differences = [f"{path.name} was left behind" for path in folder.glob("*.part")]
    for name in (FILE_NAME, PREVIOUS_NAME):
        if not (folder / name).exists():
            differences.append(f"{name} is missing; the run's last output: {_last_output(folder)}")
            continue
        try:
            content, expected = _raw_content(folder / name), _raw_content(reference / name)
        except safetensors.SafetensorError:
            differences.append(f"{name} is damaged; the run's last output: {_last_output(folder)}")
            continue
        parts = sorted(content.keys() | expected.keys())
        differences += [f"{name}: {part} differs" for part in parts if content.get(part) != expected.get(part)]
    return differences + _metric_differences(folder, reference)


def _metric_differences(folder: Path, reference: Path) -> list[str]:
    lines, expected = (read_metrics(path / "metrics.jsonl") for path in (folder, reference))
    for line in (*lines, *expected):
        for key in ("seconds", "memory_mb"):  # these depend on the machine
            line.pop(key, None)
    if lines != expected:
        steps, expected_steps = [line["step"] for line in lines], [line["step"] for line in expected]
        if steps == expected_steps:
            return ["the metrics differ in their values"]
        return [f"the metrics differ: lines of steps {steps} instead of {expected_steps}"]
    if (folder / "metrics.jsonl").read_text().count("\n") != len(expected):
        return ["the metrics file has more than its lines"]
    return []


def _raw_content(path: Path) -> dict[str, bytes | str]:
    """Return everything in a checkpoint by name, as bytes, except the header's duration and checksum."""
    with safetensors.safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 – it is no dictionary
        header = json.loads(file.metadata()["training"])
    return tensors | {key: json.dumps(value) for key, value in header.items() if key not in ("seconds", "checksum")}


def _last_output(folder: Path) -> str:
    log = folder.with_suffix(".log")
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return lines[-1] if lines else "none"
