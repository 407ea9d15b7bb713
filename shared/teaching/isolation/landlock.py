"""Landlock: a Linux process gives up its own right to access files, except those that it names.

Needs no privilege and cannot be undone. Linux 5.13 or newer; https://docs.kernel.org/userspace-api/landlock.html
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
# Number of access kinds in each version of the interface: creating, removing, linking, truncating, device control.
ACCESS_KINDS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
CONNECT_AND_BIND_TCP = 0b11  # from version 4
ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # from version 6

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes | None) -> int:
    result = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def version() -> int:
    """Return the kernel's version of Landlock; 0 when it has none."""
    try:
        return _call(CREATE_RULESET, None, 0, 1)
    except (OSError, AttributeError, ValueError):
        return 0


def restrict_to_reading(trees: Iterable[Path], listings: Iterable[Path] = ()) -> None:
    """Restrict this process: it may read files in `trees`, list the folders `listings`, and write nothing.

    Raises OSError when the kernel has no Landlock.
    """
    abi_version = version()
    if not abi_version:
        raise OSError("this kernel has no Landlock")
    all_kinds = (1 << ACCESS_KINDS.get(abi_version, ACCESS_KINDS[5])) - 1
    network = CONNECT_AND_BIND_TCP if abi_version >= 4 else 0
    scopes = ABSTRACT_SOCKETS_AND_SIGNALS if abi_version >= 6 else 0
    size = 24 if abi_version >= 6 else 16 if abi_version >= 4 else 8
    ruleset = _call(CREATE_RULESET, struct.pack("QQQ", all_kinds, network, scopes), size, 0)
    for path in trees:
        _allow(ruleset, path, READ_FILE | READ_DIR if path.is_dir() else READ_FILE)
    for path in listings:
        _allow(ruleset, path, READ_DIR)
    _libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which Landlock requires
    _call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    _call(ADD_RULE, ruleset, 1, struct.pack("=Qi", access, descriptor), 0)
    os.close(descriptor)
