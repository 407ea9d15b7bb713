"""Create virtual environments: one process at a time, with pip's output in a log, and errors of one line.

Standard library only, because nothing is installed yet. Python 3.9 can load it, to say that the course needs 3.11.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

INTERRUPTED = 130
SECONDS_TO_END = 10.0  # the time an installer has to end after Ctrl-C
# What pip prints when no server answers; it then reports a package without versions, as if the name were wrong.
UNREACHABLE = re.compile(
    r"connection broken by|could not fetch url|max retries exceeded|newconnectionerror|name resolution"
    r"|name or service not known|network is unreachable|connection refused|proxyerror|timed out|http error 5\d\d",
    re.IGNORECASE,
)


class VirtualEnvironment:
    """A virtual environment in `folder`, which may be a link to a folder on another disk.

    lock  the descriptor of `setup_lock`. Every installer inherits it, so an installer that outlives a killed set-up
          keeps the next set-up waiting until it has ended.
    """

    def __init__(self, folder: Path, lock: int):
        self.folder, self.lock = folder, lock
        self.interpreter, self.log = folder / "bin" / "python", folder / "install.log"

    def create(self) -> None:
        """Create the environment; an old or incomplete one is replaced."""
        target = self.folder.resolve()
        _remove_content(self.folder)
        target.mkdir(parents=True, exist_ok=True)
        # pip is installed by a process of its own, because the one that `venv` starts would not inherit the lock.
        venv.create(target, with_pip=False)
        command = [str(self.interpreter), "-I", "-m", "ensurepip", "--upgrade", "--default-pip"]
        if self.run("pip", command):
            advice = "if the module ensurepip is missing, install your system's package python3-venv"
            sys.exit(f"set-up failed while installing pip; {advice}. The last lines:\n{self._tail()}")

    def pip_install(self, label: str, *arguments: str, required: bool = True) -> bool:
        """Run `pip install` with a progress line and return whether it succeeded.

        pip's output is shown only when a required installation fails, which ends the program.
        """
        started = time.monotonic()
        start = self.log.stat().st_size if self.log.exists() else 0
        command = [str(self.interpreter), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
        status = self.run(label, command)
        if status and required:
            output = self.log.read_bytes()[start:].decode("utf-8", errors="replace")
            reason = f"set-up failed while installing {label}. The last lines of pip:\n{self._tail()}\n"
            reason += f"The whole log: {self.log}"
            if UNREACHABLE.search(output):
                reason += (
                    "\nthe package index is not reachable: check the network and the index that pip uses "
                    "(pip config list), then run make again"
                )
            sys.exit(reason)
        if not status:
            print(f"  {label}: done in {time.monotonic() - started:.0f} s", file=sys.stderr)
        return status == 0

    def run(self, label: str, command: list) -> int:
        """Run an installer with a progress line and return its exit status; its output goes into the log."""
        started, on_terminal = time.monotonic(), sys.stderr.isatty()
        with self.log.open("a", encoding="utf-8") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, pass_fds=(self.lock,)
            )
            try:
                while process.poll() is None:
                    time.sleep(0.2)
                    if on_terminal:
                        print(f"\r  {label} … {time.monotonic() - started:3.0f} s", end="", file=sys.stderr, flush=True)
            except BaseException:
                _end(process)
                raise
            finally:
                if on_terminal:
                    print("\r\033[K", end="", file=sys.stderr, flush=True)
        return process.returncode

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def require_python(command: str) -> None:
    """End the program when this Python cannot run the course. `command` is a make command to advise."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(
            f"this is Python {sys.version.split()[0]}; the course needs 3.11, 3.12 or 3.13. Install one (python.org, "
            f"your package manager, or uv) and run make again, or name it: {command} PYTHON=/path/to/python3.12"
        )


def require_space(folder: Path, gib: float, reason: str) -> None:
    """End the program when the disk that holds `folder`, which may not exist yet, has less than `gib` GiB free."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    if free < gib:
        sys.exit(f"{free:.1f} GiB are free in {place}; {reason} about {gib:g}. Free some space and try again.")


@contextlib.contextmanager
def setup_errors(root: Path) -> Iterator[None]:
    """End the program with one line after Ctrl-C, and when a file cannot be written."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nset-up stopped; the next make starts it again", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except OSError as error:
        sys.exit(
            f"cannot set up the course in {root}: {error.filename or ''} {error.strerror or error}. "
            "The folder must be writable: copy the course to one that is, or correct its permissions"
        )


@contextlib.contextmanager
def setup_lock(root: Path) -> Iterator[int]:
    """Hold a lock so that only one set-up of this folder runs at a time; two would delete each other's files.

    Yields its descriptor. The lock ends when this process and all that have inherited the descriptor have ended.
    """
    folder = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another make is setting up the course; waiting for it …", file=sys.stderr)
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:  # the file system has no locks
            pass
        yield folder
    finally:
        os.close(folder)


def _remove_content(folder: Path) -> None:
    """Empty the folder of an environment. A link stays; one to a folder of other files ends the program."""
    if folder.is_symlink() and folder.is_dir():
        content = {path.name for path in folder.iterdir()}
        if content and not content & {"pyvenv.cfg", "install.log"}:
            sys.exit(f"{folder} is a link to {folder.resolve()}, which has other files: empty that, or remove the link")
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif folder.is_dir():
        shutil.rmtree(folder)
    elif folder.exists():
        sys.exit(f"{folder} is a file where the environment's folder is expected: remove it and run make again")


def _end(process: subprocess.Popen) -> None:
    """End an installer, which must not write any more when this program has ended."""
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
