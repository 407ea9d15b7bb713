"""Call exercise code by name, with tensors and plain values only.

Exercise tests reach all code through `Student`. Since only values cross this interface, the grader can replace it by
a process of its own (shared/teaching/isolation).
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from shared.stdlib.tensor import Tensor as StdlibTensor
from shared.torch_conversion import to_stdlib, to_torch


class ChangedArgumentError(Exception):
    """A call has changed a tensor or a list that it was given."""


class Student:
    """Call a function of a lesson: `student("model.patches:patchify", images=…, patch_size=2)`.

    The module's name is relative to the lesson's folder. An exercise outside of it is named from the repository's root:
    `student("shared.finetuning.lora:merge", …)`. Arguments are copied before the call, and compared
    after it: a call that changes one raises ChangedArgumentError. Functions of a `reference` module receive tensors of
    the pure-Python engine.

    With `upstream`, the gradient of a loss with respect to the (first) result, the call returns the result and a dict
    of the loss's gradients with respect to each floating-point argument, by name (zeros where none flows).
    """

    def __init__(self, lesson: str):
        """`lesson` is the name of the lesson's folder."""
        self.lesson = lesson

    def __call__(self, where: str, /, *, upstream: torch.Tensor | None = None, **arguments: Any) -> Any:
        module, name = where.split(":")
        path = module if module.startswith("shared.") else f"lessons.{self.lesson}.{module}"
        function = getattr(import_module(path), name)
        call = _call_with_stdlib if module.split(".")[-1] == "reference" else _call_with_torch
        return call(function, arguments, upstream)


def _floating_point(arguments: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {
        name: value
        for name, value in arguments.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }


def _call_with_torch(function: Callable, arguments: Mapping[str, Any], upstream: torch.Tensor | None) -> Any:
    copies = {name: _copied(value) for name, value in arguments.items()}
    differentiable = {name: copies[name].requires_grad_() for name in _floating_point(arguments)}
    result = function(**copies)
    _check_unchanged(arguments, copies)
    detached = tuple(part.detach() for part in result) if isinstance(result, tuple) else result.detach()
    if upstream is None:
        return detached
    first = result[0] if isinstance(result, tuple) else result
    gradients: tuple[torch.Tensor | None, ...] = (None,) * len(differentiable)
    if first.requires_grad:
        gradients = torch.autograd.grad(first, list(differentiable.values()), upstream, allow_unused=True)
    pairs = zip(differentiable.items(), gradients, strict=True)
    return detached, {name: torch.zeros_like(tensor) if g is None else g for (name, tensor), g in pairs}


def _check_unchanged(arguments: Mapping[str, Any], copies: Mapping[str, Any]) -> None:
    """Raise ChangedArgumentError when a call has changed one of its arguments, of which it was given copies."""
    for name, argument in arguments.items():
        copy = copies[name]
        after = to_torch(copy) if isinstance(copy, StdlibTensor) else copy
        if not _equal(argument, after):
            raise ChangedArgumentError(f"the call changed its argument {name!r} in place; the caller still needs it")


def _copied(value: Any) -> Any:
    """Return a copy of a tensor without its gradient, or of a list, tuple or dict with copies of all it holds."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()}
    return value


def _equal(before: Any, after: Any) -> bool:
    """Return whether two values are equal; two tensors may have NaN at the same places."""
    if isinstance(before, torch.Tensor):
        if not isinstance(after, torch.Tensor) or before.shape != after.shape:
            return False
        after = after.detach().to(before.dtype)
        return bool(((before == after) | ((before != before) & (after != after))).all())
    if type(before) is not type(after):
        return False
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(_equal, before, after))
    if isinstance(before, dict):
        return list(before) == list(after) and all(map(_equal, before.values(), after.values()))
    return before is after or bool(before == after)


def _call_with_stdlib(function: Callable, arguments: Mapping[str, Any], upstream: torch.Tensor | None) -> Any:
    converted = {name: to_stdlib(value, upstream is not None) for name, value in _floating_point(arguments).items()}
    copies = {name: converted.get(name, _copied(value)) for name, value in arguments.items()}
    result = function(**copies)
    _check_unchanged(arguments, copies)
    detached = tuple(map(to_torch, result)) if isinstance(result, tuple) else to_torch(result)
    if upstream is None:
        return detached
    first = result[0] if isinstance(result, tuple) else result
    loss = (first * to_stdlib(upstream)).sum()
    if loss.requires_grad:
        loss.backward()
    gradients = {
        name: to_torch(StdlibTensor(tensor.grad or [0.0] * len(tensor.data), tensor.shape))
        for name, tensor in converted.items()
    }
    return detached, gradients
