"""Run command lines: errors meant for a person become one line, and every outcome has an exit status.

    @command_line()
    def main() -> int:
        ...

    if __name__ == "__main__":
        sys.exit(main())

Standard library only, so that commands which run before set-up can use it.
"""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from shared.errors import CourseError

ERROR, INTERRUPTED = 2, 130
"""Exit statuses: something outside the code is wrong; the user pressed Ctrl-C (128 + SIGINT)."""

P = ParamSpec("P")


def command_line(interrupted: str = "interrupted") -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Decorate the main function of a command so that it returns an exit status and prints no traceback to users.

    The command returns its own status, 0 for None. A CourseError is printed on stderr as `error: …` and gives 2.
    Ctrl-C prints the message `interrupted` and gives 130. Every other exception is a bug and passes through.
    """

    def decorate(main: Callable[P, int | None]) -> Callable[P, int]:
        @functools.wraps(main)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return main(*args, **kwargs) or 0
            except CourseError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                return ERROR
            except KeyboardInterrupt:
                print(interrupted, file=sys.stderr, flush=True)
                return INTERRUPTED

        return run

    return decorate


def parse_whole_number(name: str, text: str) -> int:
    """Return the integer that `text` spells. Raises CourseError, which names the argument, when it spells none."""
    try:
        return int(text)
    except ValueError:
        raise CourseError(f"{name} {text!r} is not a whole number") from None
