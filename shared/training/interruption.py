"""Being asked to stop, by Ctrl-C or by SIGTERM, without losing what was learned."""

import signal
import threading

from shared.distributed import world_size
from shared.errors import CourseError


class TrainingInterrupted(CourseError):
    """The run was asked to stop, and did, with everything saved."""


class Interruption:
    """While this context is open, Ctrl-C and SIGTERM are a wish (`wanted`) that the loop reads between two steps.

    The wish is heard once: a second Ctrl-C acts as if there were no such context, for a person who can't wait.
    Only a program's main thread may listen to signals; elsewhere this does nothing.
    """

    def __init__(self, listen: bool = True):
        self.wanted: str | None = None
        self._listen = listen and threading.current_thread() is threading.main_thread()
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if self._listen:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def _hear(self, number: int, _frame) -> None:
        self.wanted = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        # Under torchrun one Ctrl-C comes twice, from the terminal and from torchrun, which kills those that are too slow.
        if world_size() == 1:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
