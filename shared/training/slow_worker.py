"""Who keeps the others waiting? A step of many processes takes as long as its slowest one.

Wall time tells nothing: all take the same, since the fast ones wait. So each measures what it does by itself: reading
its batch and going forward through the model, without the waiting for others' weights. (On a GPU that is the time of the
host, which launches kernels and feeds them; a GPU that is slow itself shows only where the host waits for it.)
"""

import socket
import statistics
import sys
import time
from collections.abc import Sequence

from shared.distributed import gather_values, is_main, world_size

# A process is called slow when it takes this many times as long as the others' median, …
SLOW_FACTOR = 1.5
# … and the difference is this share of the whole time: twice nothing is nothing.
SLOW_SHARE = 0.2
# Judged over at least so many seconds: every process is slow for a moment now and then.
SPAN = 2.0


class Stopwatch:
    """Seconds spent within `with stopwatch:`, minus those between `pause` and `go_on`."""

    def __init__(self):
        self.seconds, self._since, self._open = 0.0, None, False

    def __enter__(self) -> "Stopwatch":
        self._open = True
        self.go_on()
        return self

    def __exit__(self, *_) -> None:
        self.pause()
        self._open = False

    def go_on(self) -> None:
        if self._open and self._since is None:
            self._since = time.perf_counter()

    def pause(self) -> None:
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def take(self) -> float:
        """Return the seconds and begin anew."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def slowest(work: Sequence[float]) -> tuple[int, float]:
    """The process that worked longest by itself, and how many times as long as the median of the others.

    work  seconds of each process, in the order of ranks; at least two
    """
    process = max(range(len(work)), key=work.__getitem__)
    others = statistics.median([*work[:process], *work[process + 1 :]])
    return process, work[process] / max(others, 1e-9)


def complaint(work: Sequence[float], hosts: Sequence[str], seconds: float) -> str | None:
    """Say which process is slow, and by how much, when one is; `seconds` is the wall time in which they worked."""
    process, factor = slowest(work)
    lost = work[process] * (1 - 1 / factor) / seconds
    if factor < SLOW_FACTOR or lost < SLOW_SHARE:
        return None
    return (
        f"process {process} on {hosts[process]} is slow: its data and forward passes take {factor:.1f} times as long as "
        f"the others', and everyone waits {lost:.0%} of the time; look for another program there, a slow disk, a hot chip"
    )


class SlowWorkers:
    """Compares the processes' own work now and then, and has the main one name a slow one, once."""

    def __init__(self, seconds: float):
        self.since = seconds
        self.worked = [0.0] * world_size()
        self.named: set[int] = set()

    def compare(self, work: Stopwatch, seconds: float) -> dict[str, float]:
        """Return what to log: who worked longest since the last comparison, and how many times as long as the others.

        seconds  of the whole run so far
        """
        if world_size() == 1:
            return {}
        worked, hosts = zip(*gather_values((work.take(), socket.gethostname())), strict=True)
        self.worked = [before + now for before, now in zip(self.worked, worked, strict=True)]
        if seconds - self.since >= SPAN:
            process, _ = slowest(self.worked)
            message = complaint(self.worked, hosts, seconds - self.since)
            if message and is_main() and process not in self.named:
                print(f"warning: {message}", file=sys.stderr, flush=True)
                self.named.add(process)
            self.worked, self.since = [0.0] * world_size(), seconds
        process, slowdown = slowest(worked)
        return {"slowest_process": process, "slowdown": slowdown}
