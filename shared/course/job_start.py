"""Start one job in its own process: `python -m shared.course.job_start FOLDER PARENT` (called by jobs.py).

FOLDER is the job's folder, and PARENT the process id of the run that started it. The process ends with that run from
its first moment. Loading PyTorch takes seconds, and a run that is killed meanwhile must leave no process behind, so
this module imports only the standard library until the run is watched.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

INTERRUPTED = 130  # exit status of a job that was asked to stop and has saved


def stop_with_parent(parent: int) -> None:
    """End this process now if `parent` is not its parent any more, else send it SIGTERM as soon as that is so.

    A training loop answers SIGTERM by saving, so that two runs never write to one folder.
    """
    if os.getppid() != parent:
        sys.exit(INTERRUPTED)
    threading.Thread(target=_wait_for_parent, args=(parent,), daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def main(folder: str, parent: str) -> int:
    """Watch the parent, then run the job and return its exit status."""
    stop_with_parent(int(parent))
    from shared.course.job_process import run_job  # loads PyTorch

    return run_job(Path(folder))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
