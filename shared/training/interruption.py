"""A request to stop, by Ctrl-C or SIGTERM, that the loop answers between two steps without losing progress."""

import signal
import threading
from types import FrameType
from typing import Any

from shared.distributed import world_size
from shared.errors import CourseError


class TrainingInterrupted(CourseError):
    """The run was asked to stop, and stopped with everything saved."""


class Interruption:
    """While this context is open, Ctrl-C and SIGTERM only set `signal_name`, which the loop reads between two steps.

    A second Ctrl-C acts as usual and ends the process at once. A program that was started to ignore Ctrl-C, as a shell
    script starts its background commands, ignores it here, too. Only a program's main thread can handle signals; in
    other threads, and with `listen=False`, this does nothing.
    """

    def __init__(self, listen: bool = True):
        self.signal_name: str | None = None
        self._listen = listen and threading.current_thread() is threading.main_thread()
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if self._listen:
            for number in (signal.SIGINT, signal.SIGTERM):
                if number == signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._previous_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore_handlers()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.signal_name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        # Under torchrun one Ctrl-C arrives twice: from the terminal and from torchrun, which later kills the processes.
        if world_size() == 1:
            self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}
