"""Test, attempt by attempt, that a student's process can change no file and reach nothing outside."""

import contextlib
import os
import sys
from pathlib import Path

import pytest

from shared.teaching.isolation import landlock, probes, sandbox, seccomp

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Landlock and seccomp")


def outcome_of(attempt, confine):
    """Return what an attempt did in a process of its own: 0 when it succeeded, 1 when it was refused."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            confine()
            try:
                attempt()
            except OSError:
                os._exit(1)
            os._exit(0)
        os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def confinements(folder):
    """Each layer alone must do, so that a kernel with one of them is enough."""
    names = {}
    if seccomp.supported():
        names["seccomp"] = seccomp.install_filter
    names["both"] = lambda: sandbox.confine(60, 1024, folder, [])
    return names


@pytest.mark.parametrize("layer", ["seccomp", "both"])
@pytest.mark.parametrize("name", probes.changes_of("path"))
def test_change_of_a_file_is_refused(tmp_path, layer, name):
    layers = confinements(tmp_path)
    if layer not in layers or not (seccomp.supported() or landlock.version()):
        pytest.skip("this kernel has neither")
    path = tmp_path / "file"
    path.write_text("unchanged")
    before = os.stat(path)
    assert outcome_of(probes.changes_of(str(path))[name], layers[layer]) == 1
    after = os.stat(path)
    assert path.read_text() == "unchanged" and [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (before.st_mode, before.st_mtime_ns, before.st_nlink) == (after.st_mode, after.st_mtime_ns, after.st_nlink)
    assert os.listxattr(path) == []


@pytest.mark.parametrize("name", ["chmod", "utime", "link", "rename", "create", "unlink"])
def test_the_attempts_work_without_confinement(tmp_path, name):
    """Else a refusal would say nothing."""
    path = tmp_path / "file"
    path.write_text("unchanged")
    assert outcome_of(probes.changes_of(str(path))[name], lambda: None) == 0


@pytest.mark.skipif(not seccomp.supported(), reason="needs seccomp")
@pytest.mark.parametrize("number", [463, 466, 469, 470, 500, 999])
def test_calls_of_later_kernels_are_refused(number):
    def call():
        if probes._libc.syscall(number, 0, 0, 0, 0, 0, 0) < 0:
            raise PermissionError if probes.ctypes.get_errno() == 1 else RuntimeError

    assert outcome_of(call, seccomp.install_filter) == 1, "refused, and not merely unknown to this kernel"


@pytest.mark.skipif(not seccomp.supported(), reason="needs seccomp")
def test_owner_of_a_descriptor_cannot_be_set():
    reader, writer = os.pipe()
    assert outcome_of(lambda: probes.fcntl.fcntl(reader, probes.fcntl.F_SETOWN, os.getppid()), lambda: None) == 0
    assert outcome_of(lambda: probes.fcntl.fcntl(reader, probes.fcntl.F_SETOWN, 1), seccomp.install_filter) == 1
    os.close(reader)
    os.close(writer)


@pytest.mark.skipif(not seccomp.supported(), reason="needs seccomp")
def test_reading_computing_and_threads_are_allowed():
    def work():
        import threading

        Path(__file__).read_bytes()
        os.listdir(Path(__file__).parent)
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        bytearray(2**24)

    assert outcome_of(work, seccomp.install_filter) == 0
