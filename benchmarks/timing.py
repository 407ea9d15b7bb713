"""Times several functions in turn, so that a busy moment of the machine affects all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Timing:
    """The seconds of each call of a function, and the result of the last one."""

    seconds: list[float] = field(default_factory=list)
    result: Any = None

    @property
    def median_ms(self) -> float:
        return 1000 * statistics.median(self.seconds)

    @property
    def best(self) -> float:
        return min(self.seconds)


def time_in_turns(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    warmup: int = 0,
    clock: Callable[[], float] = time.process_time,
    synchronize: Callable[[], None] = lambda: None,
) -> dict[str, Timing]:
    """Call the functions in turn, `rounds` times each, and return their timings by name.

    warmup       additional rounds at the start that are not timed
    clock        processor time by default, which other programs hardly change
    synchronize  called before each reading of the clock, for functions that only enqueue work on a GPU
    """
    timings = {name: Timing() for name in functions}
    for number in range(warmup + rounds):
        for name, function in functions.items():
            synchronize()
            start = clock()
            timings[name].result = function()
            synchronize()
            if number >= warmup:
                timings[name].seconds.append(clock() - start)
    return timings
