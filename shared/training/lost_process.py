"""A process that dies takes the run with it: the others can't finish a step alone. They say so, and how to go on."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from torch import distributed

from shared.distributed import rank, world_size
from shared.errors import CourseError
from shared.training.sharded_checkpoint import sharded_checkpoints, step_of

# gloo raises plain RuntimeErrors. Most name the file of its own source that they come from; of several operations that are
# under way when the time is over, some say this.
SAID_BY_GLOO = ("gloo", "timeout caused pair closure")


class ProcessLost(CourseError):
    """Another process of the run died, or did not come to a collective in time."""


@contextlib.contextmanager
def lost_process_told(folder: Path | None) -> Iterator[None]:
    """Turn what a broken collective says into a message for a person. Raises ProcessLost.

    gloo and NCCL notice a process that dies by its closed connection, and one that hangs after the time that `join` set.
    """
    try:
        yield
    except RuntimeError as error:
        of_a_collective = isinstance(error, distributed.DistError) or any(words in str(error) for words in SAID_BY_GLOO)
        if world_size() == 1 or not of_a_collective:
            raise
        reason = str(error).splitlines()[0].split("] ", 1)[-1].split(". ")[0]
        raise ProcessLost(
            f"process {rank()} waited in vain for another one, which has died or hangs ({reason}). {_way_on(folder)}"
        ) from error


def _way_on(folder: Path | None) -> str:
    if folder is None:
        return "Nothing was saved, for train() was given no folder."
    saved = sharded_checkpoints(folder)
    if not saved:
        return f"No checkpoint of this run lies in {folder} yet: begin again, with a smaller checkpoint_every."
    return f"All up to step {step_of(saved[0])} is saved in {folder}, and the same command with RESUME=1 goes on from there."
