"""Call functions in threads, whose places are taken until the functions return.

A thread cannot be stopped. When a client leaves, a call that waits for a thread is dropped, and one that runs keeps its
place and is counted: otherwise clients that come and go could start any number of calls.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from shared.serving.metrics import Metrics

MAX_THREADS = 2

Result = TypeVar("Result")


class Threads:
    """MAX_THREADS threads. Use them in one event loop."""

    def __init__(self, metrics: Metrics):
        self.metrics = metrics
        self._executor = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="service")
        self._started: dict[object, float] = {}  # the calls that run now

    async def run(self, function: Callable[[], Result]) -> Result:
        """Call a function in a thread, so that the event loop stays responsive."""
        future = self._executor.submit(self._timed, function)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel() and not future.done():
                self.metrics.abandoned_calls.inc()
                future.add_done_callback(lambda _: self.metrics.abandoned_calls.dec())
            raise

    def all_busy_for(self, seconds: float) -> bool:
        """Return whether every thread has been at one call for longer than this."""
        now, started = time.monotonic(), list(self._started.values())
        return len(started) == MAX_THREADS and all(now - each > seconds for each in started)

    def close(self) -> None:
        """Drop the calls that wait; those that run are left to end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _timed(self, function: Callable[[], Result]) -> Result:
        call = object()
        self._started[call] = time.monotonic()
        try:
            return function()
        finally:
            del self._started[call]
