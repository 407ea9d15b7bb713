"""When a submission was handed in, and what a late one costs."""

import csv
import io
import math
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

from shared.errors import CourseError
from shared.teaching.class_folder import HandIn
from shared.text_files import read_text

TIMES = "handed_in.csv"


@dataclass(frozen=True)
class LatePolicy:
    """What a late submission costs; nothing unless `course.toml` sets it."""

    grace_minutes: float = 0
    percent_per_day: float = 0
    """Percent of the points earned that are subtracted for each day begun."""
    most_days: float = math.inf
    """After so many days a submission earns nothing."""

    def fraction(self, days: int) -> float:
        """Return the fraction of the points earned that a submission keeps that is so many days late."""
        return 0.0 if days > self.most_days else max(0.0, 1 - days * self.percent_per_day / 100)


def days_late(handed_in: datetime, due: date | datetime | None, policy: LatePolicy) -> int:
    """Return the number of days begun after the due date and the time of grace; 0 in time or without a due date.

    A date without a time ends at midnight. A time without a zone is one of this machine's.
    """
    if due is None:
        return 0
    end = due if isinstance(due, datetime) else datetime.combine(due, time()) + timedelta(days=1)
    late = handed_in.astimezone() - end.astimezone() - timedelta(minutes=policy.grace_minutes)
    return max(0, math.ceil(late / timedelta(days=1)))


def handed_in_times(folder: Path) -> dict[str, datetime]:
    """Return student → time from handed_in.csv in the folder; {} without the file. Raises CourseError for a bad row."""
    path = folder / TIMES
    if not path.is_file():
        return {}
    times = {}
    for number, row in enumerate(csv.DictReader(io.StringIO(read_text(path))), 2):
        try:
            times[(row["student"] or "").strip()] = datetime.fromisoformat((row["time"] or "").strip())
        except (KeyError, ValueError):
            raise CourseError(
                f"{path}:{number}: expected the columns student and time, as in ann,2027-03-15T23:50"
            ) from None
    return times


def lateness(
    hand_in: HandIn, times: dict[str, datetime], due: date | datetime | None, policy: LatePolicy
) -> int | None:
    """Return how many days late a submission is; None when its time is not stated anywhere.

    A file's own time is not used: copying and unpacking change it. The mark of a platform alone counts as one day.
    """
    stated = times.get(hand_in.student, hand_in.stated)
    if due is None:
        return 0
    if stated is None:
        return 1 if hand_in.late else None
    return days_late(stated, due, policy)
