"""What a run has left, beside what one that was never cut has left. Part of benchmarks/kill_sweep.py."""

import json
from pathlib import Path

import safetensors

from shared.errors import CourseError
from shared.training import read_metrics
from shared.training.checkpoint import FILE_NAME, PREVIOUS_NAME, read_checkpoint


def damaged(folder: Path) -> list[str]:
    """Return what is wrong with the checkpoints that lie in `folder`."""
    faults = []
    for name in (FILE_NAME, PREVIOUS_NAME):
        if (folder / name).exists():
            try:
                read_checkpoint(folder / name)
            except CourseError as error:
                faults.append(str(error).replace(str(folder), "…"))
    return faults


def differences(folder: Path, whole: Path) -> list[str]:
    """Compare the end of a run with that of `whole`, byte for byte; return what differs, in words."""
    found = [f"{path.name} was left behind" for path in folder.glob("*.part")]
    for name in (FILE_NAME, PREVIOUS_NAME):
        if not (folder / name).exists():
            found.append(f"{name} is missing; the run's last words: {last_words(folder)}")
            continue
        try:
            ours, theirs = raw(folder / name), raw(whole / name)
        except safetensors.SafetensorError:
            found.append(f"{name} is damaged; the run's last words: {last_words(folder)}")
            continue
        found += [
            f"{name}: {part} differs"
            for part in sorted(ours.keys() | theirs.keys())
            if ours.get(part) != theirs.get(part)
        ]
    lines, wanted = (read_metrics(place / "metrics.jsonl") for place in (folder, whole))
    for line in (*lines, *wanted):
        for measured in ("seconds", "memory_mb"):  # what clock and machine decide
            line.pop(measured, None)
    if lines != wanted:
        steps = [line["step"] for line in lines], [line["step"] for line in wanted]
        found.append(
            f"the metrics differ: lines of steps {steps[0]} instead of {steps[1]}"
            if steps[0] != steps[1]
            else "the metrics differ in their values"
        )
    elif (folder / "metrics.jsonl").read_text().count("\n") != len(wanted):
        found.append("the metrics file holds more than its lines")
    return found


def raw(path: Path) -> dict[str, bytes | str]:
    """Everything in a checkpoint by name, as bytes; of the header, all but the seconds and what stands for the bytes."""
    with safetensors.safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 – it is no dictionary
        header = json.loads(file.metadata()["training"])
    return tensors | {key: json.dumps(value) for key, value in header.items() if key not in ("seconds", "checksum")}


def last_words(folder: Path) -> str:
    log = folder.with_suffix(".log")
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return lines[-1] if lines else "none"
