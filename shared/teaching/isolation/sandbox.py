"""What a student's process may not do, taken from it before its first line runs.

Three layers, each of which does without the others: resource limits (everywhere), Landlock (files, Linux), and a seccomp
filter (processes, network, signals, Linux). What of it holds on a machine is found out by trying (`trial`), never assumed.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shared.teaching.isolation import landlock, seccomp

COURSE = ("shared", "data", "lessons")
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")  # shared libraries that Python may load late


@dataclass(frozen=True)
class Limits:
    """What the code of one exercise may use."""

    cpu_seconds: int = 20
    seconds: int = 60
    """By the clock, for one call, for code that waits instead of working; time in a busy machine's queue is not counted."""
    memory_mb: int = 2048
    """On top of what Python and PyTorch take."""


def packages() -> list[str]:
    """The folders of installed packages."""
    return list(dict.fromkeys(os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")))


def readable(installed: Iterable[str]) -> tuple[list[Path], list[Path]]:
    """What a student's process may read beside its copy, and what it may only list.

    The standard library and the installed packages, but for the course itself: an editable installation is a pointer to
    a folder that may not be read, and a plain one lies here.
    """
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    folders = [Path(place) for place in installed]
    trees = [path for path in _children(standard) if path.name not in ("site-packages", "dist-packages")]
    trees += [path for place in folders for path in _children(place) if path.name not in COURSE]
    for place in {Path(path).resolve() for path in LIBRARIES}:
        trees += [path for path in _children(place) if not path.name.startswith("python")]
    return [*trees, Path("/dev/null"), Path("/dev/urandom")], [standard, *folders]


def _children(folder: Path) -> Iterable[Path]:
    return [Path(entry.path) for entry in os.scandir(folder)] if folder.is_dir() else []


def close_descriptors(keep: int) -> None:
    """Leave open what goes nowhere (0, 1, 2) and the one line to the tests."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.closerange(3, keep)
    os.closerange(keep + 1, 4096)


def confine(cpu_seconds: int, memory_mb: int, tree: Path, installed: Iterable[str]) -> None:
    """Take away from this process all that a student's code does not need; there is no way back.

    It may read the course's copy in `tree`, the standard library and the `installed` packages, and write nothing.
    """
    _limit(resource.RLIMIT_CPU, cpu_seconds, grace=1)  # a signal first, which says why; then the end
    _limit(resource.RLIMIT_FSIZE, 0)  # not one byte into any file
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 64)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if (used := _address_space()) is not None:
        _limit(resource.RLIMIT_AS, used + memory_mb * 2**20)
    if sys.platform == "darwin":  # elsewhere this would count threads, and seccomp is the better means
        _limit(resource.RLIMIT_NPROC, 0)
    _drop_capabilities()
    trees, listings = readable(installed)
    with contextlib.suppress(OSError):
        landlock.read_only([*trees, tree], listings)
    with contextlib.suppress(OSError):
        seccomp.forbid()


def _limit(what: int, most: int, grace: int = 0) -> None:
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(what, (most, most + grace))


def _address_space() -> int | None:
    """Bytes of address space in use; None where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return None


def _drop_capabilities() -> None:
    """Even root's process keeps no power over the machine (Linux: capset to none)."""
    if sys.platform == "linux":
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)())


def trial(secret: str, folder: str) -> dict[str, bool]:
    """Try, from within, what should be impossible: name of a protection → whether it held.

    `secret` is a file outside that exists, `folder` one outside that everybody may write to.
    """

    def fails(attempt) -> bool:
        try:
            attempt()
        except (OSError, MemoryError, RuntimeError):
            return True
        return False

    def read():
        with open(secret, "rb") as file:
            file.read(1)

    def write():
        path = os.path.join(folder, f"outside-{os.getpid()}")
        with open(path, "wb"):
            pass
        os.unlink(path)

    def fill():
        with open(os.path.join(folder, f"full-{os.getpid()}"), "wb", buffering=0) as file:
            file.write(b"x" * 4096)

    def fork():
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)

    def connect():
        import socket

        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9))

    def remember():
        bytearray(64 * 2**30)

    return {
        "reading the checkout": fails(read),
        "writing to disk": fails(fill),
        "touching files": fails(write),
        "new processes": fails(fork),
        "signals to others": fails(lambda: os.kill(os.getppid(), 0)),
        "network": fails(connect),
        "memory": fails(remember),
    }
