"""The chain rule as a walk: from one number back to everything that it was made from.

Every operator leaves a note on its result: which tensors it was made from (`parents`), and a `rule` that turns "how the
outcome changes with my result" into "how the outcome changes with each parent". The walk starts at the outcome, whose
change with itself is 1, and applies the rules from the last operator to the first. One walk serves every parameter,
however many there are. That is reverse-mode automatic differentiation, and all of training rests on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import add

Gradients = tuple[list[float] | None, ...]
Rule = Callable[[list[float]], Gradients]


class Node:
    """What the walk knows of a tensor: where it came from, how to go back, and, for a leaf, what the walk has found."""

    __slots__ = ("grad", "parents", "requires_grad", "rule")

    def __init__(self, requires_grad: bool):
        self.requires_grad = requires_grad
        self.parents: tuple[Node, ...] = ()
        self.rule: Rule | None = None
        self.grad: list[float] | None = None


def backpropagate(outcome: Node) -> None:
    """Walk back from one number and add to `grad` of every leaf that wants a gradient."""
    gradients: dict[int, list[float]] = {id(outcome): [1.0]}
    for node in reversed(topological_order(outcome)):
        gradient = gradients.pop(id(node))
        if node.rule is None:
            # A leaf: nobody's result. Adding, not setting, lets several losses share one step.
            node.grad = gradient if node.grad is None else list(map(add, node.grad, gradient))
            continue
        for parent, share in zip(node.parents, node.rule(gradient), strict=True):
            if parent.requires_grad:
                # A tensor used twice changes the outcome in two ways: the shares add up.
                held = gradients.get(id(parent))
                gradients[id(parent)] = share if held is None else list(map(add, held, share))


def topological_order(outcome: Node) -> list[Node]:
    """Everything that wants a gradient and led to `outcome`, each after all that it was made from.

    Read backwards, a tensor comes up only when every use of it has already handed back its share.
    """
    order: list[Node] = []
    seen: set[int] = set()
    # A stack of our own, because a recurrent network is deeper than Python lets functions call themselves.
    stack = [(outcome, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents if parent.requires_grad)
    return order


_taking_notes = True


def records_graph(parents: tuple[Node, ...]) -> bool:
    """Whether the result of an operator on `parents` needs a note for the walk back."""
    return _taking_notes and any(parent.requires_grad for parent in parents)


@contextmanager
def no_grad() -> Iterator[None]:
    """Compute without notes: for evaluation, where they would only cost time and memory."""
    global _taking_notes
    before, _taking_notes = _taking_notes, False
    try:
        yield
    finally:
        _taking_notes = before
