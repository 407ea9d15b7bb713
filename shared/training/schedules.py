"""Learning-rate schedules as pure functions of the step.

A schedule returns the fraction of the peak learning rate that applies at a step. It has no state, so a checkpoint
does not need to save it: the step number is enough.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int, int, int], float]


def warmup(step: int, warmup_steps: int) -> float:
    """Rise linearly to 1, which is reached in the last warm-up step, and stay there.

    The first step already has 1 / warmup_steps: at a rate of zero its batch would be wasted.
    """
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def constant(step: int, steps: int, warmup_steps: int = 0) -> float:
    """Warm up, then stay at 1."""
    return warmup(step, warmup_steps)


def cosine(step: int, steps: int, warmup_steps: int = 0) -> float:
    """Warm up, then decay along half a cosine that reaches zero just after the last step (arXiv:1608.03983, eq. 5)."""
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def warmup_stable_decay(step: int, steps: int, warmup_steps: int = 0, decay_fraction: float = 0.2) -> float:
    """Warm up, stay at 1, then decay linearly over the last `decay_fraction` of the steps (arXiv:2404.06395, sec. 4).

    Nothing depends on the length of the run until the decay begins: one stable run can be continued, and decayed at
    several lengths.
    """
    decay_steps = max(1, round(decay_fraction * steps))
    remaining = (steps - step) / decay_steps
    return min(warmup(step, warmup_steps), max(0.0, remaining))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "wsd": warmup_stable_decay}
