"""The tests' side of isolation: call a student's code in its own process as if it were in this one."""

import builtins
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.isolation.sandbox import Limits, installed_packages
from shared.teaching.messages import MessageError, encode, receive, send

MAX_ANSWER_SIZE = 2**16  # bytes of an answer of the fork server
MAX_NAME_LENGTH, MAX_MESSAGE_LENGTH = 100, 2000  # characters of an error


class StudentError(Exception):
    """An error of a student's code, or the way its process ended."""


class ForkServer:
    """Starts students' processes in milliseconds, from a process that has loaded PyTorch once (fork_server.py)."""

    def __init__(self) -> None:
        self.connection, remote = socket.socketpair()
        settings = json.dumps({"packages": installed_packages(), "course": str(ROOT)})
        program = str(Path(__file__).with_name("fork_server.py"))
        # No secrets or settings of the person who grades; no GPU; one thread.
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", program, str(remote.fileno()), settings],
            pass_fds=[remote.fileno()],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        remote.close()

    def request(self, message: dict, descriptors: tuple[int, ...] = ()) -> dict:
        """Send a request and return the answer. Raises CourseError when the fork server has ended."""
        try:
            socket.send_fds(self.connection, [json.dumps(message).encode()], descriptors)
            answer = self.connection.recv(MAX_ANSWER_SIZE)
        except OSError:
            answer = b""
        if not answer:
            error = self.process.stderr.read().decode(errors="replace")[-2000:] if self.process.stderr else ""
            raise CourseError(f"the process that starts students' processes has ended:\n{error}")
        return json.loads(answer)

    def close(self) -> None:
        """End the fork server and every process that it started."""
        self.connection.close()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()


class StudentProcess:
    """The code of one exercise of one student: called like `shared.course.student.Student`, then stopped.

    Calls raise StudentError, or one of Python's own exceptions (ValueError, NotImplementedError, …) if the student's
    code raised an error of that name.
    """

    def __init__(
        self, server: ForkServer, course_copy: Path, lesson: str, checked_modules: list[str], limits: Limits
    ) -> None:
        """Start the process.

        course_copy      the folder with the course and the student's file
        lesson           the name of the lesson's folder
        checked_modules  modules whose tensor shapes are checked, as they are in the tests
        """
        self.server, self.limits, self.course_copy = server, limits, course_copy
        self.connection, remote = socket.socketpair()
        self.connection.setblocking(False)
        request: dict[str, Any] = {
            "course_copy": str(course_copy),
            "lesson": lesson,
            "checked_modules": checked_modules,
        }
        request |= {"cpu_seconds": limits.cpu_seconds, "memory_mb": limits.memory_mb}
        self.pid = server.request(request, (remote.fileno(),))["process"]
        remote.close()
        self.seconds = 0.0
        """Elapsed time of all calls so far, without the time spent waiting for a free core."""
        self.end: dict | None = None
        """How the process ended and what it used; None while it runs."""

    def __call__(self, where: str, /, *, upstream: torch.Tensor | None = None, **arguments: Any) -> Any:
        call = {"where": where, "upstream": upstream, "arguments": arguments, "random": torch.get_rng_state()}
        return self._call(call)

    def probe_protections(self) -> dict[str, bool]:
        """Return which protections hold on this machine, by trying from within the process."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)
            outside, inside = Path(folder, "outside"), self.course_copy / "inside"
            for path in (outside, inside):
                path.write_text("unchanged")
            return self._call({"probe": [str(ROOT / "conftest.py"), str(outside), str(inside)]})

    def stop(self, grace: float = 0.0) -> dict:
        """End the process, unless it ends by itself within `grace` seconds. Return how it ended and what it used."""
        if self.end is None:
            self.connection.close()
            self.end = self.server.request({"stop": self.pid, "grace": grace})
        return self.end

    def _call(self, call: dict) -> Any:
        if self.end is not None:
            raise StudentError(self._reason())
        allowed = min(self.limits.seconds, self.limits.exercise_seconds - self.seconds)
        begin = time.monotonic() - self._queued_seconds()

        def seconds_used() -> float:
            return time.monotonic() - self._queued_seconds() - begin

        def seconds_left() -> float:
            return allowed - seconds_used()

        try:
            return self._exchange(call, seconds_left)
        except TimeoutError:
            self.end = self.stop() | {"ended": "too slow" if allowed == self.limits.seconds else "too slow in all"}
            raise StudentError(self._reason()) from None
        finally:
            self.seconds += seconds_used()

    def _exchange(self, call: dict, seconds_left: Callable[[], float]) -> Any:
        """Send a call and return its result; end the process when its answer is invalid. Raises TimeoutError."""
        try:
            send(self.connection.fileno(), encode(call), seconds_left)
            answer = receive(self.connection.fileno(), seconds_left)
            if not isinstance(answer, dict) or not ({"result"} == set(answer) or {"error", "message"} == set(answer)):
                raise MessageError("neither a result nor an error")
        except TimeoutError:
            raise
        except (EOFError, OSError):
            self.stop(grace=2.0)  # its connection is closed: it is about to end
            raise StudentError(self._reason()) from None
        except MessageError as error:
            self.end = self.stop() | {"ended": f"it returned {error}"}
            raise StudentError(self._reason()) from None
        if "error" in answer:
            raise _known_error(str(answer["error"])[:MAX_NAME_LENGTH], str(answer["message"])[:MAX_MESSAGE_LENGTH])
        return answer["result"]

    def _queued_seconds(self) -> float:
        """Return how long the process has waited for a free core (known on Linux), which does not count as its time."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def _reason(self) -> str:
        reasons = {
            "too slow": f"took longer than {self.limits.seconds} s",
            "too slow in all": f"took longer than {self.limits.exercise_seconds} s in all calls together",
            "SIGXCPU": f"took more than {self.limits.cpu_seconds} s of CPU time: an endless loop?",
            "SIGKILL": f"took more than {self.limits.cpu_seconds} s of CPU time or too much memory",
            "SIGSEGV": "crashed (an endless recursion?)",
        }
        ended = self.end["ended"] if self.end else "unknown"
        return f"the process of this exercise has ended: {reasons.get(ended, ended)}"


def _known_error(name: str, message: str) -> Exception:
    """Return one of Python's own exceptions if `name` is one of the allowed kinds, else a StudentError."""
    exception = getattr(builtins, name, None)
    if isinstance(exception, type) and issubclass(exception, ValueError | TypeError | RuntimeError | LookupError):
        return exception(message)
    return StudentError(f"{name}: {message}")
