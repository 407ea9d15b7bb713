"""The student's side of the border: read a call, make it, write what came back."""

from importlib import import_module

from shared.teaching.isolation.sandbox import trial
from shared.teaching.messages import encode, receive, send

LONGEST = 2000  # characters of an error message


def serve_student(descriptor: int, lesson: str, typed: list[str]) -> None:
    """Answer calls until the tests go away. The modules in `typed` have their tensors' shapes checked, as in the tests."""
    import torch
    from jaxtyping import install_import_hook

    install_import_hook(typed, "beartype.beartype")
    student = None
    while True:
        try:
            call = receive(descriptor)
        except EOFError:
            return
        try:
            if "trial" in call:
                answer = trial(*call["trial"])
            else:
                # Random numbers go on from where the test's own stand, as they do without a border.
                torch.set_rng_state(call["random"])
                student = student or import_module("shared.course.student").Student(lesson)
                answer = student(call["where"], upstream=call["upstream"], **call["arguments"])
            message = encode({"result": answer})
        except BaseException as error:
            message = encode({"error": type(error).__name__, "message": str(error)[:LONGEST]})
        send(descriptor, message)
