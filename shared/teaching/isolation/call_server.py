"""Runs in the student's process: receive calls from the tests, make them, send the results."""

from importlib import import_module

from shared.teaching.isolation.probes import probe_protections
from shared.teaching.messages import encode, receive, send

MAX_ERROR_LENGTH = 2000  # characters of an error message


def serve_calls(descriptor: int, lesson: str, checked_modules: list[str]) -> None:
    """Answer calls until the tests close the connection.

    checked_modules  modules whose tensor shapes are checked, as they are in the tests
    """
    import torch
    from jaxtyping import install_import_hook

    install_import_hook(checked_modules, "beartype.beartype")
    student = None
    while True:
        try:
            call = receive(descriptor)
        except EOFError:
            return
        try:
            if "probe" in call:
                answer = probe_protections(*call["probe"])
            else:
                # Continue the tests' random state, as if the code ran in their process.
                torch.set_rng_state(call["random"])
                student = student or import_module("shared.course.student").Student(lesson)
                answer = student(call["where"], upstream=call["upstream"], **call["arguments"])
            message = encode({"result": answer})
        except BaseException as error:
            message = encode({"error": type(error).__name__, "message": str(error)[:MAX_ERROR_LENGTH]})
        send(descriptor, message)
