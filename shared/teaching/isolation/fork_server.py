"""The process from which students' processes are forked: it has loaded PyTorch, and nothing of the course's lessons.

Loading PyTorch takes seconds and a fork takes milliseconds, so that each exercise can have a process of its own.
Started as `python -I -S fork_server.py SOCKET SETTINGS`; it serves one grader over that socket until the grader goes away:

    {"tree", "lesson", "typed", "cpu_seconds", "memory_mb"} + a descriptor   →  {"process": number}
    {"stop": number, "grace"}                                               →  {"ended": how, "memory_mb", "seconds"}
"""

import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path


def serve(line: socket.socket, installed: list[str]) -> None:
    """Answer the grader's requests until it closes the line."""
    children = set()
    while True:
        request, descriptors, _, _ = socket.recv_fds(line, 2**16, 1)
        if not request:
            break
        order = json.loads(request)
        if "stop" in order:
            children.discard(order["stop"])
            line.sendall(json.dumps(_stop(order["stop"], order["grace"])).encode())
            continue
        child = os.fork()
        if not child:
            try:
                _live(order, descriptors[0], installed)
            finally:
                os._exit(1)
        children.add(child)
        os.close(descriptors[0])
        line.sendall(json.dumps({"process": child}).encode())
    for child in children:
        _stop(child, 0.0)


def _stop(child: int, grace: float) -> dict:
    """End a child that does not end by itself within `grace` seconds, and say how it did."""
    deadline = time.monotonic() + grace
    found, status, usage = os.wait4(child, os.WNOHANG)
    while not found and time.monotonic() < deadline:
        time.sleep(0.01)
        found, status, usage = os.wait4(child, os.WNOHANG)
    if not found:
        os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
        ended = "stopped"
    else:
        code = os.waitstatus_to_exitcode(status)
        ended = f"exit {code}" if code >= 0 else signal.Signals(-code).name
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return {"ended": ended, "memory_mb": round(usage.ru_maxrss / scale), "seconds": usage.ru_utime + usage.ru_stime}


def _live(order: dict, descriptor: int, installed: list[str]) -> None:
    """A student's process, from its birth to its end."""
    from shared.teaching.isolation.call_server import serve_student
    from shared.teaching.isolation.sandbox import close_descriptors, confine

    close_descriptors(descriptor)
    os.chdir(order["tree"])
    # From here on the course is the copy, with the student's part in it; what was loaded to get here is forgotten.
    sys.path[:] = [order["tree"], *(path for path in sys.path if path != _COURSE)]
    for name in [name for name in sys.modules if name.split(".")[0] == "shared"]:
        del sys.modules[name]
    sys.path_importer_cache.clear()
    confine(order["cpu_seconds"], order["memory_mb"], Path(order["tree"]), installed)
    serve_student(descriptor, order["lesson"], order["typed"])


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    global _COURSE
    _COURSE = settings["course"]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the grader's to answer; it closes the line
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The packages without what they run at start-up: an editable installation would lead back to the solution.
    sys.path += [*settings["installed"], _COURSE]
    import beartype  # noqa: F401
    import einops  # noqa: F401
    import torch

    torch.set_num_threads(1)
    # What PyTorch loads on the first way back, loaded now.
    one = torch.ones(1, requires_grad=True)
    torch.autograd.grad(one.softmax(0).sum(), [one])
    serve(line, settings["installed"])


if __name__ == "__main__":
    main()
