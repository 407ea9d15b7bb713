"""What a run hands to each arm besides the arm's own settings."""

from dataclasses import dataclass
from pathlib import Path


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
