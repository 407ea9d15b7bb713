"""Let a program print to every terminal, whatever characters the terminal's encoding has.

Programs of the course print signs such as ≥ and ±. A terminal whose encoding lacks one, as ASCII does, would end the
program with an error.
"""

import codecs
import sys

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


def _replace_by_similar(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    similar = SIMILAR | LEVELS
    characters = error.object[error.start : error.end]
    return "".join(similar.get(character, "?") for character in characters), error.end
