"""Let a program print to every terminal and every pipe.

Programs of the course print signs such as ≥ and ±. A terminal whose encoding lacks one, as ASCII does, would end the
program with an error. So would a pipe whose reader has ended, as in `make reference-1 | head`.
"""

import codecs
import os
import sys
from collections.abc import Callable

INTERRUPTED, NO_READER = 130, 141
"""Exit statuses: the user pressed Ctrl-C (128 + SIGINT); the program that reads the output has ended, as `head` does
(128 + SIGPIPE)."""

HANDLER = "replace-by-similar"
SIMILAR = {
    "≥": ">=",
    "≤": "<=",
    "±": "+/-",
    "×": "x",
    "·": "*",
    "−": "-",
    "–": "-",
    "—": "-",
    "─": "-",
    "…": "...",
    "→": "->",
    "“": '"',
    "”": '"',
    "’": "'",
    "✓": "ok",
    "π": "pi",
}
LEVELS = dict(zip("▁▂▃▄▅▆▇█", "_.-=+*%#", strict=True)) | dict(zip("░▒▓", ".+%", strict=True))


def print_to_any_terminal() -> None:
    """Replace a character that standard output and standard error cannot encode by similar ones, or by `?`."""
    codecs.register_error(HANDLER, _replace_by_similar)
    for stream in (sys.stdout, sys.stderr):
        # Tests replace the streams by others, and a program without a terminal may have none.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)


def run_program(main: Callable[[], None]) -> None:
    """Run the main function of a reference: it prints to any terminal, and no traceback when its reader has ended.

    Ends the program with status 141 when standard output has no reader any more, and 130 at Ctrl-C.
    """
    print_to_any_terminal()
    try:
        try:
            main()
        finally:
            if sys.stdout:
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        discard_output()
        sys.exit(NO_READER)


def discard_output() -> None:
    """Discard what is still buffered for standard output; Python would try to write it when the program ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _replace_by_similar(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    similar = SIMILAR | LEVELS
    characters = error.object[error.start : error.end]
    return "".join(similar.get(character, "?") for character in characters), error.end
