"""seccomp: a Linux process gives up its own right to make all system calls but those that computing needs.

It can use memory and time, read files, start threads, and read and write open descriptors. Everything else is refused,
also calls that a later kernel adds: new processes, sockets, signals to others, and every change of a file or its
metadata. Needs no privilege and cannot be undone. https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

import ctypes
import errno
import os
import platform
import struct

# name → number on x86-64 and on 64-bit ARM (None when there is no such call), from the kernel's tables.
ALLOWED = {
    # open descriptors, and reading files
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "close": (3, 57),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents": (78, None),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "fadvise64": (221, 223),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    # memory
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "mincore": (27, 232),
    "brk": (12, 214),
    "membarrier": (324, 283),
    "get_mempolicy": (239, 236),
    # threads of this process, and its own signals
    "futex": (202, 98),
    "futex_waitv": (449, 449),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "getcpu": (309, 168),
    "arch_prctl": (158, None),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigpending": (127, 136),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # what the process is, the time, and randomness
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getgroups": (115, 158),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "times": (100, 153),
    "time": (201, None),
    "gettimeofday": (96, 169),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "getrandom": (318, 278),
}
CLONE, TGKILL, CLONE3, OPENAT2 = (56, 220), (234, 131), (435, 435), (437, 437)
OPEN, OPENAT, FCNTL, IOCTL, PRCTL = (2, None), (257, 56), (72, 25), (16, 29), (157, 167)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7), "arm64": (1, 0xC00000B7)}
CLONE_THREAD = 0x10000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Copies and flags of a descriptor; not its owner or its signal, which reach other processes.
DESCRIPTOR_COMMANDS = (0, 1, 2, 3, 4, 1030)
# Is it a terminal, and how large; how many bytes can be read; closing on exec; blocking.
DEVICE_COMMANDS = (0x5401, 0x5413, 0x541B, 0x5451, 0x5450, 0x5421)
PROCESS_OPTIONS = (15, 16, 0x53564D41)  # names of threads and of memory

# An instruction of the filter: the operation, how far to jump if true and if false, a number.
LOAD, EQUAL, AT_LEAST, HAS_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, (16, 24, 32)  # offsets in the data that the kernel gives the filter


def supported() -> bool:
    """Return True on a Linux kernel and machine that this filter is written for."""
    return os.uname().sysname == "Linux" and platform.machine() in ARCHITECTURES


def _refuse(error: int) -> int:
    return 0x00050000 | error


def _if_argument(number: int | None, argument: int, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Return the steps that allow a call only if one of its arguments has one of the values."""
    if number is None:
        return []
    steps = [(LOAD, 0, 0, ARGUMENTS[argument])]
    for value in values:
        steps += [(EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW)]
    steps.append((RETURN, 0, 0, _refuse(errno.EPERM)))
    return [(EQUAL, 0, len(steps), number), *steps]


def _if_bits(number: int | None, argument: int, bits: int, *, needed: bool) -> list[tuple[int, int, int, int]]:
    """Return the steps that allow a call only if any of the bits is set in an argument, or only if none is."""
    if number is None:
        return []
    if_set, if_not = (ALLOW, _refuse(errno.EPERM)) if needed else (_refuse(errno.EPERM), ALLOW)
    steps = [(LOAD, 0, 0, ARGUMENTS[argument]), (HAS_BIT, 0, 1, bits), (RETURN, 0, 0, if_set), (RETURN, 0, 0, if_not)]
    return [(EQUAL, 0, len(steps), number), *steps]


def program(process: int) -> bytes:
    """Return the filter for the process of that id, which may signal itself (as abort does) and start threads."""
    column, architecture = ARCHITECTURES[platform.machine()]
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
    ]
    # x86-64 has a second table of numbers, from 2³⁰ on.
    steps += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, _refuse(errno.ENOSYS))]
    # These hide their flags behind a pointer; when they do not exist, the C library calls clone and openat.
    for call in (CLONE3, OPENAT2):
        steps += [(EQUAL, 0, 1, call[column]), (RETURN, 0, 0, _refuse(errno.ENOSYS))]
    steps += _if_bits(CLONE[column], 0, CLONE_THREAD, needed=True)
    steps += _if_bits(OPEN[column], 1, WRITING, needed=False)
    steps += _if_bits(OPENAT[column], 2, WRITING, needed=False)
    steps += _if_argument(TGKILL[column], 0, (process,))
    steps += _if_argument(FCNTL[column], 1, DESCRIPTOR_COMMANDS)
    steps += _if_argument(IOCTL[column], 1, DEVICE_COMMANDS)
    steps += _if_argument(PRCTL[column], 0, PROCESS_OPTIONS)
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    steps.append((RETURN, 0, 0, _refuse(errno.EPERM)))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def install_filter() -> None:
    """Install the filter: from now on the kernel refuses every other call. Raises OSError if it cannot."""
    if not supported():
        raise OSError("there is no filter for this system")
    code = program(os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if libc.prctl(22, 2, filter_program, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
