"""The tests' side of the border: a student's code in a process of its own, called as if it were here."""

import builtins
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from shared.course.lesson import ROOT
from shared.errors import CourseError
from shared.teaching.isolation.sandbox import Limits, packages
from shared.teaching.messages import WireError, encode, receive, send


class StudentError(Exception):
    """What a student's code raised, or how its process ended."""


class Nursery:
    """Starts students' processes, each in milliseconds; itself it takes the seconds that PyTorch takes to load."""

    def __init__(self) -> None:
        self.line, theirs = socket.socketpair()
        settings = json.dumps({"installed": packages(), "course": str(ROOT)})
        # Neither secrets nor settings of the person who grades; no GPU; one thread.
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(Path(__file__).with_name("fork_server.py")), str(theirs.fileno()), settings],
            pass_fds=[theirs.fileno()], env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        theirs.close()

    def ask(self, order: dict, descriptors: tuple[int, ...] = ()) -> dict:
        try:
            socket.send_fds(self.line, [json.dumps(order).encode()], descriptors)
            answer = self.line.recv(2**16)
        except OSError:
            answer = b""
        if not answer:
            error = self.process.stderr.read().decode(errors="replace")[-2000:]
            raise CourseError(f"the process that students' code is started from has ended:\n{error}")
        return json.loads(answer)

    def close(self) -> None:
        self.line.close()
        self.process.wait()
        self.process.stderr.close()


class StudentProcess:
    """One exercise of one student: called like `shared.course.student.Student`, and stopped when its tests are over.

    Its calls raise StudentError, or an error of Python's own kinds (ValueError, NotImplementedError, …) where the
    student's code raised one of that name.
    """

    def __init__(self, nursery: Nursery, tree: Path, lesson: str, typed: list[str], limits: Limits):
        self.nursery, self.limits = nursery, limits
        self.line, theirs = socket.socketpair()
        self.line.setblocking(False)
        order = {"tree": str(tree), "lesson": lesson, "typed": typed}
        order |= {"cpu_seconds": limits.cpu_seconds, "memory_mb": limits.memory_mb}
        self.number = nursery.ask(order, (theirs.fileno(),))["process"]
        theirs.close()
        self.end: dict | None = None

    def __call__(self, where: str, /, *, upstream: torch.Tensor | None = None, **arguments: Any) -> Any:
        call = {"where": where, "upstream": upstream, "arguments": arguments, "random": torch.get_rng_state()}
        return self._ask(call)

    def trial(self) -> dict[str, bool]:
        """Which protections hold on this machine, tried from within."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)
            return self._ask({"trial": [str(ROOT / "conftest.py"), folder]})

    def stop(self, grace: float = 0.0) -> dict:
        """End the process, and say what it used, and how it ended where it did by itself within `grace` seconds."""
        if self.end is None:
            self.line.close()
            self.end = self.nursery.ask({"stop": self.number, "grace": grace})
        return self.end

    def _ask(self, call: dict) -> Any:
        if self.end is not None:
            raise StudentError(self._how_it_ended())
        end = time.monotonic() + self.limits.seconds - self._queued()

        def left() -> float:
            return end + self._queued() - time.monotonic()

        try:
            send(self.line.fileno(), encode(call), left)
            answer = receive(self.line.fileno(), left)
            if not isinstance(answer, dict) or not ({"result"} == set(answer) or {"error", "message"} == set(answer)):
                raise WireError("neither a result nor an error")
        except TimeoutError:
            self.stop()
            self.end |= {"ended": "too slow"}
            raise StudentError(self._how_it_ended()) from None
        except (EOFError, OSError):
            self.stop(grace=2.0)  # its line is cut: it is about to end
            raise StudentError(self._how_it_ended()) from None
        except WireError as error:
            self.stop()
            self.end |= {"ended": f"it gave back {error}"}
            raise StudentError(self._how_it_ended()) from None
        if "error" in answer:
            name, message = str(answer["error"])[:100], str(answer["message"])[:2000]
            known = getattr(builtins, name, None)
            if isinstance(known, type) and issubclass(known, ValueError | TypeError | RuntimeError | LookupError):
                raise known(message)
            raise StudentError(f"{name}: {message}")
        return answer["result"]

    def _queued(self) -> float:
        """Seconds that the process has waited for a free core, which are not its own: known on Linux."""
        try:
            return int(Path(f"/proc/{self.number}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def _how_it_ended(self) -> str:
        reasons = {
            "too slow": f"took longer than {self.limits.seconds} s",
            "SIGXCPU": f"took more than {self.limits.cpu_seconds} s of work: an endless loop?",
            "SIGKILL": f"took more than {self.limits.cpu_seconds} s of work or too much memory",
            "SIGSEGV": "crashed (a recursion without end?)",
        }
        ended = self.end["ended"]
        return f"the process of this exercise has ended: {reasons.get(ended, ended)}"
