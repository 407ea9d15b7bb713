"""Try, from within a student's process, what should be impossible there."""

import ctypes
import fcntl
import os
import platform
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

Attempt = Callable[[], object]

_libc = ctypes.CDLL(None, use_errno=True)
# Calls that Python has no function for: name → number on x86-64 and on 64-bit ARM.
NUMBERS = {"setxattr": (188, 5), "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469)}
AT_FDCWD = -100
SET_FLAGS, IMMUTABLE = 0x40086602, 0x10  # ioctl FS_IOC_SETFLAGS


def probe_protections(secret: str, outside: str, inside: str) -> dict[str, bool]:
    """Return name of the protection → whether it held against every attempt.

    secret   a file outside the copy of the course that exists
    outside  a file outside of it, in a folder that every user may write to
    inside   a file in the copy of the course
    """
    changes = [attempt for path in (outside, inside) for attempt in changes_of(path).values()]
    return {
        "reading the checkout": _fails(lambda: Path(secret).read_bytes()),
        "writing to disk": all(_fails(attempt) for attempt in _writes(outside)),
        "touching files": not [attempt for attempt in changes if not _fails(attempt)],
        "new processes": _fails(_fork),
        "signals to others": _fails(lambda: os.kill(os.getppid(), 0)) and _fails(_send_by_descriptor),
        "network": _fails(_connect),
        "memory": _fails(lambda: bytearray(64 * 2**30)),
    }


def _fails(attempt: Attempt) -> bool:
    try:
        attempt()
    except (OSError, MemoryError, RuntimeError, AttributeError):  # AttributeError: this system has no such call
        return True
    return False


def changes_of(path: str) -> dict[str, Attempt]:
    """Return attempts to change a file, its metadata or its folder, each undoing nothing."""
    other = f"{path}-{os.getpid()}"

    def create() -> None:
        os.close(os.open(other, os.O_CREAT | os.O_RDONLY, 0o600))

    return {
        "chmod": lambda: os.chmod(path, 0o777),
        "chown": lambda: os.chown(path, os.getuid(), os.getgid()),
        "utime": lambda: os.utime(path, (1, 1)),
        "setxattr": lambda: os.setxattr(path, "user.note", b"1"),
        "removexattr": lambda: os.removexattr(path, "user.note"),
        "set an ACL": lambda: _call("setxattr", path.encode(), b"system.posix_acl_access", *_everyone()),
        "setxattrat": lambda: _set_attribute_at(path),
        "removexattrat": lambda: _call("removexattrat", AT_FDCWD, path.encode(), 0, b"user.note"),
        "file_setattr": lambda: _call(
            "file_setattr", AT_FDCWD, path.encode(), struct.pack("QIIII", 0, 0, 0, 0, 0), 24, 0
        ),
        "ioctl": lambda: _set_flags(path),
        "link": lambda: os.link(path, other),
        "symlink": lambda: os.symlink(path, other),
        "rename": lambda: os.rename(path, other),
        "truncate": lambda: os.truncate(path, 0),
        "mkdir": lambda: os.mkdir(other),
        "create": create,
        "mkfifo": lambda: os.mkfifo(other),
        "unlink": lambda: os.unlink(path),
    }


def _writes(path: str) -> Iterator[Attempt]:
    for place, flags in ((f"{path}-full", os.O_WRONLY | os.O_CREAT), (path, os.O_RDWR), (path, os.O_WRONLY)):
        yield lambda place=place, flags=flags: os.write(os.open(place, flags, 0o600), b"x" * 4096)  # type: ignore[misc]


def _call(name: str, *arguments: int | bytes) -> None:
    column = {"x86_64": 0, "aarch64": 1, "arm64": 1}[platform.machine()]
    values = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    if _libc.syscall(ctypes.c_long(NUMBERS[name][column]), *values) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _everyone() -> tuple[bytes, int, int]:
    """Return an access control list that lets every user read and write: its bytes, their number, no flags."""
    entries = [(tag, 7, 2**32 - 1) for tag in (0x01, 0x04, 0x20)]  # owner, group, others
    content = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    return content, len(content), 0


def _set_attribute_at(path: str) -> None:
    value = ctypes.create_string_buffer(b"1", 1)
    arguments = struct.pack("QII", ctypes.addressof(value), 1, 0)
    _call("setxattrat", AT_FDCWD, path.encode(), 0, b"user.note", arguments, len(arguments))


def _set_flags(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, SET_FLAGS, struct.pack("L", 0x80))  # do not update the time of access
    finally:
        os.close(descriptor)


def _fork() -> None:
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _send_by_descriptor() -> None:
    """Let another process get a signal when a descriptor has news."""
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())
    fcntl.fcntl(0, fcntl.F_SETSIG, signal.SIGUSR1)


def _connect() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
