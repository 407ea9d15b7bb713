"""The process that students' processes are forked from: it has loaded PyTorch, but nothing of the course's lessons.

Loading PyTorch takes seconds and a fork takes milliseconds, so each exercise can have its own process.
Started as `python -I -S fork_server.py SOCKET SETTINGS`; it serves one grader over that socket until it is closed:

    {"course_copy", "lesson", "checked_modules", "cpu_seconds", "memory_mb"} + a descriptor  →  {"process": pid}
    {"stop": pid, "grace"}                                                →  {"ended": how, "memory_mb", "seconds"}
"""

import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

MAX_REQUEST_SIZE = 2**16


def serve(connection: socket.socket, packages: list[str], course: str) -> None:
    """Answer the grader's requests until it closes the connection.

    packages  folders of installed packages, which students' processes may read
    course    the folder of the course, which they may not
    """
    children = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, MAX_REQUEST_SIZE, 1)
        if not message:
            break
        request = json.loads(message)
        if "stop" in request:
            children.discard(request["stop"])
            connection.sendall(json.dumps(_stop(request["stop"], request["grace"])).encode())
            continue
        child = os.fork()
        if not child:
            try:
                _run_student_process(request, descriptors[0], packages, course)
            finally:
                os._exit(1)
        children.add(child)
        os.close(descriptors[0])
        connection.sendall(json.dumps({"process": child}).encode())
    for child in children:
        _stop(child, 0.0)


def _stop(child: int, grace: float) -> dict:
    """End a child that does not end by itself within `grace` seconds. Return how it ended and what it used."""
    deadline = time.monotonic() + grace
    ended_pid, status, usage = os.wait4(child, os.WNOHANG)
    while not ended_pid and time.monotonic() < deadline:
        time.sleep(0.01)
        ended_pid, status, usage = os.wait4(child, os.WNOHANG)
    if not ended_pid:
        os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
        ended = "stopped"
    else:
        code = os.waitstatus_to_exitcode(status)
        ended = f"exit {code}" if code >= 0 else signal.Signals(-code).name
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return {"ended": ended, "memory_mb": round(usage.ru_maxrss / scale), "seconds": usage.ru_utime + usage.ru_stime}


def _run_student_process(request: dict, descriptor: int, packages: list[str], course: str) -> None:
    """Confine this process and answer calls: a student's process from beginning to end."""
    from shared.teaching.isolation.call_server import serve_calls  # loads the probes, which the copy does not have
    from shared.teaching.isolation.sandbox import close_descriptors, confine

    close_descriptors(descriptor)
    os.chdir(request["course_copy"])
    # From here on the course is the copy with the student's code in it. Unload what was loaded from the original.
    sys.path[:] = [request["course_copy"], *(path for path in sys.path if path != course)]
    for name in [name for name in sys.modules if name.split(".")[0] == "shared"]:
        del sys.modules[name]
    sys.path_importer_cache.clear()
    confine(request["cpu_seconds"], request["memory_mb"], Path(request["course_copy"]), packages)
    serve_calls(descriptor, request["lesson"], request["checked_modules"])


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the grader, which closes the connection
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Add packages without running their start-up code: an editable installation would lead back to the solution.
    sys.path += [*settings["packages"], settings["course"]]
    import beartype  # noqa: F401
    import einops  # noqa: F401
    import torch

    torch.set_num_threads(1)
    # Load now what PyTorch loads on the first backward pass.
    one = torch.ones(1, requires_grad=True)
    torch.autograd.grad(one.softmax(0).sum(), [one])
    serve(connection, settings["packages"], settings["course"])


if __name__ == "__main__":
    main()
