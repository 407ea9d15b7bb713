"""Judge claims: what a claim measures, the verdict over several seeds, and the row that every table shows.

`number`, `difference` and `ratio` make the functions that most claims measure with. `judge` applies a claim to the
arms of each seed. `claim_row` formats a verdict for the terminal, the report, `results.json` and the lesson's page.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from shared.course.lesson import Arms, Claim

# Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom: few seeds make wide intervals.
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

Measure = Callable[[Arms], float]
"""Reads one value from the measurements of one seed's arms."""


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


# ── Verdicts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Verdict:
    """The outcome of one claim in one run over one or more seeds."""

    claim: Claim
    values: tuple[float, ...]
    """The measured value per seed."""
    baselines: tuple[float, ...]
    """The baseline's value per seed; empty when the claim has no baseline."""
    judged: bool
    """False when the threshold was not calibrated for this preset or data set: measured, but not judged."""

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % confidence interval of the mean over seeds; None for one seed."""
        return half_width(self.values)

    @property
    def holds(self) -> bool:
        """Whether the mean lies on the right side of the threshold and of the mean baseline. NaN never holds."""
        sign = 1 if self.claim.at_least else -1
        right_side = sign * self.mean >= sign * self.claim.threshold
        ahead = not self.baselines or sign * self.mean > sign * fmean(self.baselines)
        return right_side and ahead

    @property
    def label(self) -> str:
        """The verdict as tables print it."""
        if not self.judged:
            return "measured"
        if self.holds:
            return "reproduced"
        return "not at this scale" if self.claim.expected == "not at this scale" else "FAILED"

    @property
    def as_expected(self) -> bool:
        return not self.judged or self.holds == (self.claim.expected == "reproduced")


def half_width(values: Sequence[float]) -> float | None:
    """Return half of the 95 % confidence interval (Student's t) of the mean of `values`; None for a single value."""
    if len(values) < 2:
        return None
    quantile = STUDENT_T[min(len(values) - 1, len(STUDENT_T)) - 1]
    return quantile * stdev(values) / math.sqrt(len(values))


def judge(claim: Claim, arms_by_seed: Mapping[int, Arms], *, judged: bool) -> Verdict:
    """Measure one claim on every seed."""
    values = tuple(float(claim.measure(arms)) for arms in arms_by_seed.values())
    baselines = tuple(float(claim.baseline(arms)) for arms in arms_by_seed.values()) if claim.baseline else ()
    return Verdict(claim, values, baselines, judged)


# ── Tables ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def format_value(value: float, show: str) -> str:
    """Format a value as tables print it: a fraction in percent, a difference in percentage points, an error as 1e-5."""
    if show == "percent":
        return f"{100 * value:.1f} %"
    if show == "points":
        return f"{100 * value:+.1f} points"
    if show == "error":
        return f"{value:.1e}"
    return f"{value:.3g}"


def format_mean(verdict: Verdict) -> str:
    """Format the mean over seeds, with ± half of its interval when there are several seeds."""
    show = verdict.claim.show
    text = format_value(verdict.mean, show)
    half = verdict.half_width
    if half is None or show == "error":
        return text
    return f"{text} ± {100 * half:.1f}" if show in ("percent", "points") else f"{text} ± {half:.2g}"


def claim_row(verdict: Verdict) -> dict[str, str]:
    """Return one row of the claims table, the same for the terminal, the report and the README."""
    claim = verdict.claim
    baseline, threshold = "–", "–"
    if verdict.baselines:
        baseline = f"{format_value(fmean(verdict.baselines), claim.show)} ({claim.baseline_name})"
    if verdict.judged:
        threshold = f"{'≥' if claim.at_least else '≤'} {format_value(claim.threshold, claim.show)}"
    return {
        "kind": claim.kind,
        "claim": claim.sentence,
        "baseline": baseline,
        "measured": format_mean(verdict),
        "threshold": threshold,
        "verdict": verdict.label,
    }
