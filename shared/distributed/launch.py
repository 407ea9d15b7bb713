"""Starting a program several times on this machine, as `torchrun` does: what tests and benchmarks need."""

import os
import subprocess
import sys
from pathlib import Path


def launch(
    processes: int,
    program: Path | str,
    *arguments: str,
    seconds: float = 120,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess:
    """Run `program` in `processes` processes of one thread each and return how that ended, with what they said.

    With one process the program is started plainly, without torchrun. Raises subprocess.TimeoutExpired after `seconds`.
    """
    start = [sys.executable]
    if processes > 1:
        # --standalone finds a free port by itself, so that two launches never meet.
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    return subprocess.run(
        [*start, str(program), *arguments],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
