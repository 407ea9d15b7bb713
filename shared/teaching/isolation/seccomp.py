"""seccomp: a Linux process gives up its own right to make certain system calls.

Here: new processes, the network, signals to other processes, changes of limits, and administration of the machine.
Needs no privilege and cannot be undone. https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

import ctypes
import errno
import os
import platform
import struct

# name → number on x86-64 and on 64-bit ARM (None when there is no such call), from the kernel's tables.
FORBIDDEN = {
    # new processes and programs
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # the network, and any other socket
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "io_uring_setup": (425, 425),
    # other processes: signals, memory, descriptors
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    # limits and priorities
    "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    # memory that persists after its process
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    # the machine
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "init_module": (175, 105),
    "kexec_load": (246, 104),
    "finit_module": (313, 273),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "open_by_handle_at": (304, 265),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utimensat": (280, 88),
    "fchmodat2": (452, 452),
    "lchown": (94, None),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
}
CLONE, CLONE3, TGKILL = (56, 220), (435, 435), (234, 131)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7), "arm64": (1, 0xC00000B7)}
CLONE_THREAD = 0x10000

# An instruction of the filter: the operation, how far to jump if true and if false, a number.
LOAD, EQUAL, AT_LEAST, HAS_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in the data that the kernel gives the filter


def supported() -> bool:
    """Return True on a Linux kernel and machine that this filter is written for."""
    return os.uname().sysname == "Linux" and platform.machine() in ARCHITECTURES


def _refuse(error: int) -> int:
    return 0x00050000 | error


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
    # clone3 hides its flags behind a pointer; when it does not exist, the C library calls clone.
    steps += [(EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, _refuse(errno.ENOSYS))]
    for call, passes in ((CLONE, (HAS_BIT, 0, 1, CLONE_THREAD)), (TGKILL, (EQUAL, 0, 1, process))):
        steps += [(EQUAL, 0, 4, call[column]), (LOAD, 0, 0, FIRST_ARGUMENT), passes]
        steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, _refuse(errno.EPERM))]
    for numbers in FORBIDDEN.values():
        if (number := numbers[column]) is not None:
            steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, _refuse(errno.EPERM))]
    steps.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def install_filter() -> None:
    """Install the filter: from now on the kernel answers the calls above with EPERM. Raises OSError if it cannot."""
    if not supported():
        raise OSError("there is no filter for this system")
    code = program(os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if libc.prctl(22, 2, filter_program, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
