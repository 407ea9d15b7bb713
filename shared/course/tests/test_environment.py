"""The environment is set up once, by one process at a time, and a set-up that fails ends with one line."""

import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace

import pytest

from shared.course import doctor, environment, virtual_environment
from shared.course.virtual_environment import VirtualEnvironment, setup_lock


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty course whose environment does not exist."""
    for name in environment.PINS:
        (tmp_path / name).write_text("")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "ENVIRONMENT", tmp_path / ".venv")
    monkeypatch.setattr(environment, "STAMP", tmp_path / ".venv" / "ready")
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: False)
    return tmp_path


@pytest.fixture
def built(root, monkeypatch):
    """Replace the set-up by one that installs nothing; return the list of its events."""
    events = []
    (root / ".venv").mkdir()

    def build(lock):
        events.append("begin")
        environment.STAMP.write_text(environment.fingerprint())
        events.append("end")

    monkeypatch.setattr(environment, "build", build)
    return events


@pytest.fixture
def pip(root, monkeypatch):
    """Replace the installers by a list of their commands; `pip.output` is what they print, `pip.failing` who fails."""
    calls = Namespace(commands=[], output="", failing=())

    def run(self, label, command):
        calls.commands.append(command)
        self.log.open("a").write(calls.output)
        return int(label in calls.failing)

    monkeypatch.setattr(VirtualEnvironment, "run", run)
    return calls


def give_space(monkeypatch, gib: float) -> None:
    monkeypatch.setattr(virtual_environment.shutil, "disk_usage", lambda place: Namespace(free=gib * 2**30))


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.02)


def test_a_set_up_waits_for_another_and_does_not_repeat_it(built, capsys):
    waiting, message = threading.Thread(target=environment.main), ""
    with setup_lock(environment.ROOT):
        waiting.start()
        while "another make is setting up the course" not in message:
            message += capsys.readouterr().err
            time.sleep(0.01)
        assert not built
        environment.build(0)
    waiting.join()
    assert built == ["begin", "end"]


def test_changed_pins_are_set_up_again(built):
    environment.main()
    environment.main()
    assert built == ["begin", "end"]
    (environment.ROOT / environment.PINS[0]).write_text("another")
    environment.main()
    assert built == ["begin", "end"] * 2


def test_everything_is_installed_into_a_new_environment(root, pip):
    (root / ".venv").mkdir()
    (root / ".venv" / "half").write_text("of an installation that was stopped")
    environment.main()
    assert environment.is_ready() and not (root / ".venv" / "half").exists()
    assert [command[-1] for command in pip.commands] == [
        "--default-pip",
        f"{environment.TORCH}{'+cpu' if sys.platform.startswith('linux') else ''}",
        str(root / "requirements.txt"),
        str(root),
    ]


# ── A set-up that is stopped ──────────────────────────────────────────────────────────────────────────────────────────

INSTALLER = "import os, time; open({file!r}, 'w').write(str(os.getpid())); time.sleep(600)"
PROGRAM = """
import sys
from pathlib import Path
from shared.course.virtual_environment import VirtualEnvironment, setup_errors, setup_lock
root = Path({root!r})
with setup_errors(root), setup_lock(root) as lock:
    VirtualEnvironment(root, lock).run("a package", [sys.executable, "-S", "-c", {installer!r}])
"""


def start_set_up(root) -> tuple[subprocess.Popen, int]:
    """Start a set-up whose installer takes ten minutes; return its process, and the installer's process id."""
    file = root / "process"
    program = PROGRAM.format(root=str(root), installer=INSTALLER.format(file=str(file)))
    set_up = subprocess.Popen([sys.executable, "-S", "-c", program], cwd=doctor.ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: file.exists() and file.read_text())
    return set_up, int(file.read_text())


def test_the_installer_of_a_killed_set_up_keeps_the_next_one_waiting(root):
    set_up, installer = start_set_up(root)
    try:
        set_up.kill()
        set_up.wait()
        command = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        lock = [sys.executable, "-S", "-c", command, str(root)]
        assert subprocess.run(lock, stderr=subprocess.DEVNULL).returncode != 0, "the installer still writes"
    finally:
        os.kill(installer, signal.SIGKILL)
    with setup_lock(root):  # which waits until the installer has ended
        pass


def test_ctrl_c_ends_the_installer_too_and_prints_one_line(root):
    set_up, installer = start_set_up(root)
    set_up.send_signal(signal.SIGINT)
    error = set_up.communicate(timeout=60)[1]
    assert set_up.returncode == 130 and error.strip() == "set-up stopped; the next make starts it again"
    with pytest.raises(ProcessLookupError):
        os.kill(installer, 0)


def test_a_set_up_that_was_started_to_ignore_ctrl_c_goes_on(root):
    """A shell script starts its background commands so: its own Ctrl-C must not stop them; SIGTERM does."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        set_up, installer = start_set_up(root)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        set_up.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            set_up.wait(1)
        os.kill(installer, 0)
    finally:
        set_up.terminate()
        set_up.communicate()
        os.kill(installer, signal.SIGKILL)
    assert set_up.returncode == -signal.SIGTERM


# ── Where the environment is ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_environment_that_is_a_link_stays_one(root, pip, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("another disk")
    (root / ".venv").symlink_to(elsewhere)
    environment.main()
    assert (root / ".venv").is_symlink() and (elsewhere / "ready").exists() and (elsewhere / "pyvenv.cfg").exists()
    (elsewhere / "old").write_text("of the old environment")
    (root / environment.PINS[0]).write_text("another")
    environment.main()
    assert (root / ".venv").is_symlink() and environment.is_ready() and not (elsewhere / "old").exists()


def test_a_link_to_nowhere_gets_its_folder(root, pip, tmp_path):
    (root / ".venv").symlink_to(tmp_path / "new" / "folder")
    environment.main()
    assert (tmp_path / "new" / "folder" / "ready").exists()


def test_a_link_to_other_files_is_refused(root, pip, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("home")
    (elsewhere / "thesis.txt").write_text("years of work")
    (root / ".venv").symlink_to(elsewhere)
    with pytest.raises(SystemExit, match="which has other files"):
        environment.main()
    assert (elsewhere / "thesis.txt").exists()


def test_a_file_in_its_place_is_named(root, pip):
    (root / ".venv").write_text("")
    with pytest.raises(SystemExit, match="is a file where the environment's folder is expected"):
        environment.main()


def test_a_read_only_folder_is_one_line(root, pip, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system", str(root / ".venv"))

    monkeypatch.setattr(virtual_environment.venv, "create", refuse)
    with pytest.raises(SystemExit) as caught:
        environment.main()
    message = str(caught.value)
    assert "Read-only file system" in message and "must be writable" in message and "\n" not in message


# ── The package index and the disk ────────────────────────────────────────────────────────────────────────────────────

DEAD = (
    "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken "
    "by 'NewConnectionError': /simple/torch/\nERROR: Could not find a version that satisfies the requirement torch"
)


@pytest.mark.parametrize(("output", "unreachable"), [(DEAD, True), ("ERROR: no matching distribution", False)])
def test_an_unreachable_package_index_is_the_last_line(root, pip, output, unreachable):
    pip.output, pip.failing = output, ("the other packages",)
    with pytest.raises(SystemExit) as caught:
        environment.main()
    assert "set-up failed while installing the other packages" in str(caught.value)
    last_line = str(caught.value).splitlines()[-1]
    assert last_line.startswith("the package index is not reachable") == unreachable
    assert not environment.is_ready()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PyTorch has CUDA builds for Linux only")
def test_the_larger_cuda_build_needs_more_space(root, pip, monkeypatch):
    give_space(monkeypatch, 4)
    pip.failing = ("PyTorch, CPU build",)
    with pytest.raises(SystemExit, match=r"CPU build is not reachable.*CUDA build needs about 6"):
        environment.main()
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: True)
    pip.commands.clear()
    with pytest.raises(SystemExit, match=r"4\.0 GiB are free in .*; the environment needs about 6"):
        environment.main()
    assert not pip.commands


def test_a_full_disk_is_noticed_first(root, pip, monkeypatch):
    give_space(monkeypatch, 1)
    with pytest.raises(SystemExit, match=r"1\.0 GiB are free in .*; the environment needs about 3"):
        environment.main()
    assert not pip.commands
