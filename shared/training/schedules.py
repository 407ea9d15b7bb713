"""The learning rate over a run, as pure functions of the step.

A schedule says which share of the peak learning rate holds at a step. It keeps no state, so there is
nothing in it to save or to restore: the step alone brings it back.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int, int, int], float]


def warmup(step: int, warmup_steps: int) -> float:
    """Rise in a straight line and arrive at 1 in the last warm-up step; 1 from there on.

    The first step already takes 1 / warmup_steps: a step at rate zero would be a batch wasted.
    """
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def constant(step: int, steps: int, warmup_steps: int = 0) -> float:
    """Warm up, then stay."""
    return warmup(step, warmup_steps)


def cosine(step: int, steps: int, warmup_steps: int = 0) -> float:
    """Warm up, then fall along half a cosine that would reach zero just after the last step (arXiv:1608.03983, eq. 5)."""
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def warmup_stable_decay(step: int, steps: int, warmup_steps: int = 0, decay_share: float = 0.2) -> float:
    """Warm up, stay, and fall in a straight line over the last `decay_share` of the steps (arXiv:2404.06395, section 4).

    Until the decay begins nothing depends on how long the run will be: one stable run can be continued,
    and decayed at several lengths.
    """
    decay_steps = max(1, round(decay_share * steps))
    left = (steps - step) / decay_steps
    return min(warmup(step, warmup_steps), max(0.0, left))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "wsd": warmup_stable_decay}
