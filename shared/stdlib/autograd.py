"""Reverse-mode automatic differentiation: the chain rule, applied from a scalar back to all that it depends on.

Every operator records on its result which tensors it was computed from (`parents`) and a backward function. That
function takes the gradient of the loss with respect to the result and returns the gradient with respect to each parent.
Backpropagation starts at the loss, whose gradient with respect to itself is 1, and applies the backward functions from
the last operator to the first. One pass computes the gradients of all parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import add

Gradients = tuple[list[float] | None, ...]
"""One flat gradient per parent; None for a parent that requires none."""
BackwardFunction = Callable[[list[float]], Gradients]


class Node:
    """A tensor in the computation graph: its parents, its backward function and, for a leaf, its gradient."""

    __slots__ = ("backward_function", "grad", "parents", "requires_grad")

    def __init__(self, requires_grad: bool):
        self.requires_grad = requires_grad
        self.parents: tuple[Node, ...] = ()
        self.backward_function: BackwardFunction | None = None
        self.grad: list[float] | None = None


def backpropagate(loss: Node) -> None:
    """Compute the gradient of a scalar and add it to `grad` of every leaf that requires a gradient."""
    gradients: dict[int, list[float]] = {id(loss): [1.0]}
    for node in reversed(topological_order(loss)):
        gradient = gradients.pop(id(node))
        if node.backward_function is None:
            # A leaf. Gradients are added, not set, so that several losses can share one optimizer step.
            node.grad = gradient if node.grad is None else list(map(add, node.grad, gradient))
            continue
        for parent, contribution in zip(node.parents, node.backward_function(gradient), strict=True):
            if parent.requires_grad and contribution is not None:
                # A tensor that is used twice affects the loss in two ways: its gradients add up.
                previous = gradients.get(id(parent))
                gradients[id(parent)] = contribution if previous is None else list(map(add, previous, contribution))


def topological_order(loss: Node) -> list[Node]:
    """Return every node that requires a gradient and leads to `loss`, each after all of its parents.

    In reverse order, a tensor comes after every use of it, when its gradient is complete.
    """
    order: list[Node] = []
    visited: set[int] = set()
    # An explicit stack, because a recurrent network is deeper than Python's recursion limit.
    stack = [(loss, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif id(node) not in visited:
            visited.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents if parent.requires_grad)
    return order


_recording = True


def records_graph(parents: tuple[Node, ...]) -> bool:
    """Return whether the result of an operator on `parents` needs a backward function."""
    return _recording and any(parent.requires_grad for parent in parents)


@contextmanager
def no_grad() -> Iterator[None]:
    """Compute without recording the graph: for evaluation, where it would only cost time and memory."""
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before
