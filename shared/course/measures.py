"""What most claims measure: one number of one arm, or two arms of the same seed side by side."""

from collections.abc import Callable

from shared.course.lesson import Arms

Measure = Callable[[Arms], float]


def number(arm: str, name: str) -> Measure:
    """Reads one number of one arm."""
    return lambda arms: arms[arm][name]


def difference(arm: str, rival: str, name: str = "accuracy") -> Measure:
    """Reads by how much one arm's number exceeds another's, trained from the same seed."""
    return lambda arms: arms[arm][name] - arms[rival][name]


def ratio(arm: str, rival: str, name: str) -> Measure:
    """Reads one arm's number as a share of another's, trained from the same seed."""
    return lambda arms: arms[arm][name] / arms[rival][name]
