"""Rows and tables of the benchmarks, and the machine that they were measured on."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.course.machine import describe_machine


@dataclass(frozen=True)
class Row:
    """One measurement: what was measured, the course's value, its rival's (None without one), and the unit.

    ratio  above 1 the course is ahead
    """

    name: str
    course: float
    rival: float | None
    unit: str
    ratio: float | None

    @classmethod
    def of_time(cls, name: str, course: float, rival: float | None, unit: str) -> "Row":
        """Return a row for which less is better."""
        return cls(name, course, rival, unit, None if rival is None else rival / course)

    @classmethod
    def of_rate(cls, name: str, course: float, rival: float | None, unit: str) -> "Row":
        """Return a row for which more is better."""
        return cls(name, course, rival, unit, None if rival is None else course / rival)

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, under COLUMNS."""
        rival = "–" if self.rival is None else f"{self.rival:,.4g}"
        ratio = "–" if self.ratio is None else f"{self.ratio:.2f}"
        return self.name, f"{self.course:,.4g}", rival, self.unit, ratio


COLUMNS = ("measurement", "course", "rival", "unit", "ratio (above 1: the course is ahead)")


def print_rows(rows: Sequence[Row]) -> None:
    """Print rows as aligned lines."""
    width = max(len(row.name) for row in rows)
    for row in rows:
        name, course, rival, unit, ratio = row.cells()
        print(f"{name:<{width}} {course:>10} {rival:>10} {unit:<8} ×{ratio}", flush=True)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, *rows)]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:]])


def machine_line() -> str:
    """Return the machine and the versions, on one line."""
    return "; ".join(f"{key} {value}" for key, value in describe_machine().items())
