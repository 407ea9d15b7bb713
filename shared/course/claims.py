"""Judge claims: what a claim measures, its verdict over several seeds, and how one run compares with the record.

`number`, `difference` and `ratio` make the functions that most claims measure with. `judge` applies a claim to the
arms of each seed. A verdict uses 95 % intervals over seeds. A single run has no interval: it is compared with the
recorded values of the same preset.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from shared.course.lesson import Arms, Claim

# Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom: few seeds make wide intervals.
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
NORMAL_QUANTILE = 1.960
"""The same quantile for many degrees of freedom."""
MEASURED = "measured"
"""The label of a claim that is measured and not judged."""

Measure = Callable[[Arms], float]
"""Reads one value from the measurements of one seed's arms."""
Side = Literal["right", "wrong", "both"]
"""Where an interval lies: on the right side of a threshold, on the wrong side, or on both sides."""


# ── Measures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def number(arm: str, name: str) -> Measure:
    """Return a measure that reads one number of one arm."""
    return lambda arms: arms[arm][name]


def difference(arm: str, baseline: str, name: str = "accuracy") -> Measure:
    """Return a measure that subtracts the baseline arm's number from the arm's, both trained from the same seed."""
    return lambda arms: arms[arm][name] - arms[baseline][name]


def ratio(arm: str, baseline: str, name: str) -> Measure:
    """Return a measure that divides the arm's number by the baseline arm's, both trained from the same seed."""
    return lambda arms: arms[arm][name] / arms[baseline][name]


# ── Intervals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Interval:
    """A closed interval of values."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def side(self, threshold: float, *, at_least: bool) -> Side:
        """Return on which side of the threshold the interval lies. NaN lies on the wrong side."""
        low, high, limit = (self.low, self.high, threshold) if at_least else (-self.high, -self.low, -threshold)
        if low >= limit:
            return "right"
        return "both" if high >= limit else "wrong"


def half_width(values: Sequence[float]) -> float | None:
    """Return half of the 95 % confidence interval (Student's t) of the mean of `values`; None for a single value."""
    if len(values) < 2:
        return None
    return _quantile(values) * _spread(values) / math.sqrt(len(values))


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the 95 % confidence interval of the mean of two or more values; of one value, that value alone."""
    mean, half = fmean(values), half_width(values) or 0.0
    return Interval(mean - half, mean + half)


def run_interval(values: Sequence[float]) -> Interval:
    """Return the interval that holds the value of one further run with a probability of 95 %.

    It is wider than the interval of the mean: mean ± t · s · √(1 + 1/n), for n values of standard deviation s.
    """
    mean = fmean(values)
    half = _quantile(values) * _spread(values) * math.sqrt(1 + 1 / len(values)) if len(values) > 1 else 0.0
    return Interval(mean - half, mean + half)


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation; NaN when a value is NaN, which `stdev` does not take."""
    return math.nan if any(map(math.isnan, values)) else stdev(values)


def _quantile(values: Sequence[float]) -> float:
    return STUDENT_T[min(len(values) - 1, len(STUDENT_T)) - 1]


# ── Verdicts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Verdict:
    """The outcome of one claim in one run over one or more seeds.

    values     the measured value per seed
    baselines  the baseline's value per seed; empty when the claim has no baseline
    judged     False when the threshold was not calibrated for this preset or data set: measured, but not judged
    recorded   the recorded values of this preset, one per recorded seed; empty without a record
    """

    claim: Claim
    values: tuple[float, ...]
    baselines: tuple[float, ...]
    judged: bool
    recorded: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % confidence interval of the mean over seeds; None for one seed."""
        return half_width(self.values)

    @property
    def side(self) -> Side:
        """The side of the threshold, and of zero for the difference to the baseline paired by seed.

        "right" when both intervals lie on the right side, "wrong" when either lies on the wrong side, else "both".
        For one seed the intervals are single values.
        """
        claim = self.claim
        sides = [mean_interval(self.values).side(claim.threshold, at_least=claim.at_least)]
        if self.baselines:
            gains = [value - baseline for value, baseline in zip(self.values, self.baselines, strict=True)]
            side = mean_interval(gains).side(0.0, at_least=claim.at_least)
            # Equal to the baseline in every seed is no gain.
            sides.append("wrong" if side == "right" and fmean(gains) == 0.0 else side)
        if "wrong" in sides:
            return "wrong"
        return "both" if "both" in sides else "right"

    @property
    def label(self) -> str:
        """The verdict as tables print it.

        Over several seeds, and for exact claims: "reproduced", "not reproduced" or "inconclusive". For one seed:
        "within" or "outside" the interval of recorded runs, or how it lies to the threshold when there is no record.
        """
        if not self.judged:
            return MEASURED
        if self._has_interval:
            return {"right": "reproduced", "wrong": "not reproduced", "both": "inconclusive"}[self.side]
        if self.recorded:
            return "within" if self.mean in run_interval(self.recorded) else "outside"
        return "meets the threshold" if self.side == "right" else "misses the threshold"

    @property
    def as_expected(self) -> bool:
        """Whether the run agrees with the claim's expected verdict.

        Over several seeds, an inconclusive verdict contradicts nothing. One seed contradicts the record when its value
        is outside the interval of recorded runs and on the other side of the threshold.
        """
        if not self.judged:
            return True
        expected_side = {"reproduced": "right", "not reproduced": "wrong"}.get(self.claim.expected)
        if expected_side is None or self.side in (expected_side, "both"):
            return True
        return not self._has_interval and bool(self.recorded) and self.label == "within"

    @property
    def _has_interval(self) -> bool:
        """Whether the values decide: over several seeds, or in a claim whose value has no spread."""
        return len(self.values) > 1 or self.claim.kind == "exact"


def judge(claim: Claim, arms_by_seed: Mapping[int, Arms], *, judged: bool, recorded: Sequence[float] = ()) -> Verdict:
    """Measure one claim on every seed."""
    values = tuple(float(claim.measure(arms)) for arms in arms_by_seed.values())
    baselines = tuple(float(claim.baseline(arms)) for arms in arms_by_seed.values()) if claim.baseline else ()
    return Verdict(claim, values, baselines, judged, tuple(recorded))


# ── Formats ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def format_value(value: float, show: str) -> str:
    """Format a value as tables print it: a fraction in percent, a difference in percentage points, an error as 1e-5."""
    if show == "error":
        return f"{value:.1e}"
    texts = {"percent": f"{100 * value:.1f} %", "points": f"{100 * value:+.1f} points"}
    text = texts.get(show, f"{value:.3g}")
    if text.startswith("-"):
        text = text[1:] if text.startswith("-0.0 ") else f"−{text[1:]}"
    return text


def format_threshold(claim: Claim) -> str:
    """Format the threshold with its direction: "≥ 85.0 %"."""
    return f"{'≥' if claim.at_least else '≤'} {format_value(claim.threshold, claim.show)}"


def format_interval(interval: Interval, show: str) -> str:
    """Format an interval: "92.4 % to 97.0 %"."""
    return f"{format_value(interval.low, show)} to {format_value(interval.high, show)}"


def format_baseline(verdict: Verdict) -> str:
    """Format the mean of the baseline with its name; a dash without a baseline."""
    if not verdict.baselines:
        return "–"
    return f"{format_value(fmean(verdict.baselines), verdict.claim.show)} ({verdict.claim.baseline_name})"


def format_mean(verdict: Verdict) -> str:
    """Format the mean over seeds, with ± half of its interval when there are several seeds.

    The interval of a fraction is cut at 0 and 100 %, and then both ends are printed: "98.7 % (94.0 to 100.0)". For a
    fraction of `test_items`, the sampling error of the test set follows in parentheses.
    """
    claim, half = verdict.claim, verdict.half_width
    text = format_value(verdict.mean, claim.show)
    if half is None or claim.show == "error":
        return text
    low, high = verdict.mean - half, verdict.mean + half
    if claim.show == "percent" and (low < 0 or high > 1):
        text += f" ({100 * max(low, 0.0):.1f} to {100 * min(high, 1.0):.1f})"
    else:
        text += f" ± {100 * half:.1f}" if claim.show in ("percent", "points") else f" ± {half:.2g}"
    sampling = sampling_error(verdict.mean, claim.test_items) if claim.show == "percent" and claim.test_items else 0.0
    return f"{text} (test set ± {100 * sampling:.1f})" if sampling else text


def sampling_error(fraction: float, items: int) -> float:
    """Return half of the 95 % interval of a fraction of `items` independent test items (normal approximation)."""
    return NORMAL_QUANTILE * math.sqrt(max(0.0, fraction * (1 - fraction)) / items)
