"""What a run hands to each arm besides the arm's own settings."""

from dataclasses import dataclass, replace
from pathlib import Path

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

    def run_options(self, *, label: str | None = None, tokens_per_step: int | None = None) -> RunOptions:
        """Return the options of `shared.training.train`; the label is the folder's name unless given."""
        return RunOptions(
            folder=self.folder,
            resume=self.resume,
            device=self.device,
            label=self.folder.name if label is None else label,
            tokens_per_step=tokens_per_step,
        )
