"""What a run hands to each arm besides the arm's own settings."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.course.records import read_result
from shared.errors import CourseError
from shared.training.config import RunOptions


@dataclass(frozen=True)
class RunContext:
    """Describe one execution of an arm.

    seed    of every random choice that the arm makes
    data    name of the data set
    device  "cpu" or "cuda"
    folder  where the arm writes its checkpoints and records
    resume  whether to continue from the checkpoint in `folder`
    """

    seed: int
    data: str
    device: str
    folder: Path
    resume: bool = False

    def subfolder(self, name: str) -> "RunContext":
        """Return the same context with a folder of its own, for one of several training runs of an arm."""
        return replace(self, folder=self.folder / name)

    def folder_of(self, arm: str) -> Path:
        """Return the folder of another arm of the same run, which must have finished (`Arm.after`)."""
        return self.folder.parent / arm

    def measurements_of(self, arm: str) -> dict[str, Any]:
        """Return the measurements of another arm of the same run. Raises CourseError when it has not finished."""
        result = read_result(self.folder_of(arm))
        if result is None:
            raise CourseError(f"the arm {arm!r} has no result in {self.folder_of(arm)}; run it before this one")
        return result

    def run_options(self, *, label: str | None = None, tokens_per_step: int | None = None) -> RunOptions:
        """Return the options of `shared.training.train`; the label is the folder's name unless given."""
        return RunOptions(
            folder=self.folder,
            resume=self.resume,
            device=self.device,
            label=self.folder.name if label is None else label,
            tokens_per_step=tokens_per_step,
        )
