"""Names of files that a data file states: they come from elsewhere, and may name anything on this machine."""

import os.path
from pathlib import PurePath
from typing import Any

from shared.json_text import has_lone_surrogate, shorten
from shared.options import MAX_NAME_BYTES


def file_name_error(name: Any) -> str | None:
    """Return why a value cannot be the name of a file, however it is spelled; None if it can.

    The error begins with the value, on one printable line of limited length.
    """
    if not isinstance(name, str) or not name:
        return f"{shorten(name)}; expected a file's name"
    if has_lone_surrogate(name) or "\0" in name:
        return f"{shorten(name)}, with characters that no file name can have"
    longest = max((len(part.encode()) for part in PurePath(name).parts), default=0)
    if longest > MAX_NAME_BYTES:
        return f"{shorten(name)}, a name of {longest:,} bytes; file systems allow {MAX_NAME_BYTES}"
    return None


def leaves_folder(name: str) -> bool:
    """Return whether a name, read relative to a folder, leaves it, as "/etc/x", "../x" and "a/../../x" do."""
    return PurePath(name).is_absolute() or os.path.normpath(name).split(os.sep)[0] == os.pardir
