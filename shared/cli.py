"""Run command lines: errors meant for a person become one line, and every outcome has an exit status.

    @command_line()
    def main() -> int:
        ...

    if __name__ == "__main__":
        sys.exit(main())

Standard library only, so that commands which run before set-up can use it.
"""

import functools
import re
import select
import sys
from collections.abc import Callable
from typing import ParamSpec

from shared.errors import CourseError
from shared.stdlib.output import INTERRUPTED, NO_READER, discard_output, print_to_any_terminal

ERROR = 2
"""Exit status: something outside the code is wrong."""

P = ParamSpec("P")


def command_line(interrupted: str = "interrupted") -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Decorate the main function of a command so that it returns an exit status and prints no traceback to users.

    The command returns its own status, 0 for None. A CourseError is printed on stderr as `error: …` and gives 2.
    Ctrl-C prints the message `interrupted` and gives 130. Output that is no longer read ends the command with 141.
    Every other exception is a bug and passes through. A character that the terminal lacks is replaced.
    """

    def decorate(main: Callable[P, int | None]) -> Callable[P, int]:
        @functools.wraps(main)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            print_to_any_terminal()
            try:
                status = main(*args, **kwargs) or 0
                _flush()
                return status
            except CourseError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                return ERROR
            except KeyboardInterrupt:
                print(interrupted, file=sys.stderr, flush=True)
                return INTERRUPTED
            except BrokenPipeError:
                if _output_is_read():
                    raise  # another pipe broke
                return NO_READER

        return run

    return decorate


def _flush() -> None:
    """Write what is still buffered now, where an error can be caught. Raises CourseError when the disk is full."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_output()
        raise CourseError(f"cannot write the output: {error.strerror or error}") from error


def _output_is_read() -> bool:
    """Return whether standard output has a reader; else discard the rest, which Python would write at its exit."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # errors are reported unasked
    except (AttributeError, OSError, ValueError):  # standard output is not a file
        return True
    if not poll.poll(0):
        return True
    discard_output()
    return False


def parse_whole_number(name: str, text: str, *, least: int | None = None, most: int | None = None) -> int:
    """Return the integer that `text` spells. Raises CourseError, which names the argument, when it spells none.

    least, most  the limits of accepted values, if any
    """
    text = text.strip()
    if not text:
        raise CourseError(f"{name} is empty; give a whole number")
    quoted = repr(text) if len(text) <= 30 else f"{text[:20]!r}… ({len(text)} characters)"
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise CourseError(f"{name} {quoted} is not a whole number")
    if len(text) > 1000:  # more digits than Python converts
        raise CourseError(f"{name} {quoted} is too large")
    value = int(text)
    if least is not None and value < least:
        raise CourseError(f"{name} {quoted} is too small; the least is {least}")
    if most is not None and value > most:
        raise CourseError(f"{name} {quoted} is too large; the greatest is {most}")
    return value
