"""Rows and tables of the benchmarks, and the machine that they were measured on."""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.course.machine import describe_machine

COLUMNS = ("measurement", "course", "baseline", "unit", "ratio (above 1: the course is ahead)")


@dataclass(frozen=True)
class Row:
    """One measurement.

    course    the value of the course's code
    baseline  the value of the code that it is compared with; None without one
    ratio     above 1 the course is ahead; None without a baseline
    """

    name: str
    course: float
    baseline: float | None
    unit: str
    ratio: float | None

    @classmethod
    def of_cost(cls, name: str, course: float, baseline: float | None, unit: str) -> "Row":
        """Return a row of times or sizes: less is better."""
        return cls(name, course, baseline, unit, None if baseline is None else baseline / course)

    @classmethod
    def of_rate(cls, name: str, course: float, baseline: float | None, unit: str) -> "Row":
        """Return a row of speeds: more is better."""
        return cls(name, course, baseline, unit, None if baseline is None else course / baseline)

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, under COLUMNS."""
        baseline = "–" if self.baseline is None else f"{self.baseline:,.4g}"
        ratio = "–" if self.ratio is None else f"{self.ratio:.2f}"
        return self.name, f"{self.course:,.4g}", baseline, self.unit, ratio


def print_rows(rows: Sequence[Row]) -> None:
    """Print rows as aligned lines."""
    width = max(len(row.name) for row in rows)
    for name, course, baseline, unit, ratio in (row.cells() for row in rows):
        print(f"{name:<{width}} {course:>10} {baseline:>10} {unit:<8} ×{ratio}", flush=True)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    header, *lines = [f"| {' | '.join(cells)} |" for cells in (columns, *rows)]
    return "\n".join([header, "|---" * len(columns) + "|", *lines])


def machine_line() -> str:
    """Return the machine and the versions, on one line."""
    return "; ".join(f"{key} {value}" for key, value in describe_machine().items())
