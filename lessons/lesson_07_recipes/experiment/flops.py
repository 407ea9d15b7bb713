"""Equal training compute: count the operations of a training step, and turn a budget of operations into steps."""

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode

BACKWARD = 2
"""A backward pass computes two products for each one of the forward pass: for the inputs and for the weights."""


def training_flops(forward: Callable[[], object]) -> int:
    """Return the floating-point operations of a training step whose forward pass is given.

    Matrix products are counted, attention included; norms and nonlinearities are not.
    """
    with FlopCounterMode(display=False) as counter:
        forward()
    return (1 + BACKWARD) * counter.get_total_flops()


def affordable_steps(budget: float, flops_per_step: int) -> int:
    """Return the number of steps that a budget of operations pays for, at least one."""
    return max(1, int(budget // flops_per_step))
