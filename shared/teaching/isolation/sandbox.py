"""Confine a student's process before its first line of code runs.

Three independent layers: resource limits (everywhere), Landlock (files, Linux), and a seccomp filter (all system calls
but those that computing needs, Linux). Which of them hold on a machine is determined by trying (probes.py), never
assumed.
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

COURSE_PACKAGES = ("shared", "data", "lessons", "apps")
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")  # shared libraries that Python may load later


@dataclass(frozen=True)
class Limits:
    """The resources that the code of one exercise may use."""

    cpu_seconds: int = 20
    seconds: int = 60
    """Elapsed time of one call, for code that sleeps. Time spent waiting for a free core does not count."""
    exercise_seconds: int = 120
    """Elapsed time of all calls of one exercise together."""
    memory_mb: int = 2048
    """In addition to what Python and PyTorch use."""


def installed_packages() -> list[str]:
    """Return the folders of installed packages."""
    return list(dict.fromkeys(os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")))


def readable_paths(packages: Iterable[str]) -> tuple[list[Path], list[Path]]:
    """Return what a student's process may read besides its copy of the course, and what it may only list.

    Readable are the standard library and the installed packages without the course itself: an editable installation
    points to a folder that is not readable, and a regular one is among the packages.
    """
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    folders = [Path(place) for place in packages]
    trees = [path for path in _children(standard) if path.name not in ("site-packages", "dist-packages")]
    trees += [path for place in folders for path in _children(place) if path.name not in COURSE_PACKAGES]
    for place in {Path(path).resolve() for path in LIBRARIES}:
        trees += [path for path in _children(place) if not path.name.startswith("python")]
    return [*trees, Path("/dev/null"), Path("/dev/urandom")], [standard, *folders]


def _children(folder: Path) -> Iterable[Path]:
    return [Path(entry.path) for entry in os.scandir(folder)] if folder.is_dir() else []


def close_descriptors(keep: int) -> None:
    """Close all descriptors but the connection to the tests; 0, 1 and 2 become the null device."""
    null_device = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null_device, standard)
    os.closerange(3, keep)
    os.closerange(keep + 1, 4096)


def confine(cpu_seconds: int, memory_mb: int, course_copy: Path, packages: Iterable[str]) -> None:
    """Remove every right that a student's code does not need from this process, irreversibly.

    It may read the copy of the course, the standard library and the installed `packages`, and write nothing.
    """
    _limit(resource.RLIMIT_CPU, cpu_seconds, grace=1)  # first a signal, which gives the reason; then the kill
    _limit(resource.RLIMIT_FSIZE, 0)  # not one byte into any file
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 64)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if (used := _address_space_bytes()) is not None:
        _limit(resource.RLIMIT_AS, used + memory_mb * 2**20)
    if sys.platform == "darwin":  # on Linux this would count threads, and seccomp is the better way
        _limit(resource.RLIMIT_NPROC, 0)
    _drop_capabilities()
    trees, listings = readable_paths(packages)
    with contextlib.suppress(OSError):
        landlock.restrict_to_reading([*trees, course_copy], listings)
    with contextlib.suppress(OSError):
        seccomp.install_filter()


def _limit(kind: int, value: int, grace: int = 0) -> None:
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (value, value + grace))


def _address_space_bytes() -> int | None:
    """Return the bytes of address space in use; None when the system does not report them."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return None


def _drop_capabilities() -> None:
    """Drop all capabilities, so that even a process of root has no power over the machine (Linux: capset to none)."""
    if sys.platform == "linux":
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)())
