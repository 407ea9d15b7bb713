"""How exercise tests reach a student's code: by name, with tensors and plain values in and out only.

Nothing but numbers crosses the border, so that a process can stand between the tests and the code that they judge.
"""

from importlib import import_module
from typing import Any

import torch

from shared.stdlib import tensor as stdlib
from shared.torch_conversion import to_stdlib, to_torch


class Student:
    """`student("model.patches:patchify", images=…, patch_size=2)` calls that function of a lesson with copies.

    With `upstream`, the gradient of some loss by the (first) result, it returns that result and by name the gradient of
    the loss by every argument of floating-point numbers: zeros where the function lets none through.
    """

    def __init__(self, lesson: str):
        """`lesson` is the name of its folder."""
        self.lesson = lesson

    def __call__(self, where: str, /, *, upstream: torch.Tensor | None = None, **arguments: Any) -> Any:
        module, function = where.split(":")
        call = getattr(import_module(f"lessons.{self.lesson}.{module}"), function)
        # The references compute with the course's own pure-Python tensors.
        through = _through_stdlib if module.split(".")[-1] == "reference" else _through_torch
        return through(call, arguments, upstream)


def _floating(arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        name: value
        for name, value in arguments.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }


def _through_torch(call, arguments, upstream):
    own = {name: value.detach().clone() for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    differentiable = {name: own[name].requires_grad_() for name in _floating(arguments)}
    result = call(**{**arguments, **own})
    plain = tuple(part.detach() for part in result) if isinstance(result, tuple) else result.detach()
    if upstream is None:
        return plain
    first = result[0] if isinstance(result, tuple) else result
    gradients = [None] * len(differentiable)
    if first.requires_grad:
        gradients = torch.autograd.grad(first, list(differentiable.values()), upstream, allow_unused=True)
    found = zip(differentiable.items(), gradients, strict=True)
    return plain, {name: torch.zeros_like(tensor) if g is None else g for (name, tensor), g in found}


def _through_stdlib(call, arguments, upstream):
    own = {name: to_stdlib(value, upstream is not None) for name, value in _floating(arguments).items()}
    result = call(**{**arguments, **own})
    plain = tuple(map(to_torch, result)) if isinstance(result, tuple) else to_torch(result)
    if upstream is None:
        return plain
    first = result[0] if isinstance(result, tuple) else result
    loss = (first * to_stdlib(upstream)).sum()
    if loss.requires_grad:
        loss.backward()
    gradients = {
        name: to_torch(stdlib.Tensor(tensor.grad or [0.0] * len(tensor.data), tensor.shape))
        for name, tensor in own.items()
    }
    return plain, gradients
