"""From measurements to verdicts: the arithmetic behind the claims table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from shared.course.lesson import Arms, Claim

# Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom: few seeds make wide intervals.
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Verdict:
    """A claim as one run, of one or more seeds, has found it."""

    claim: Claim
    values: tuple[float, ...]
    """One measured value a seed."""
    baselines: tuple[float, ...]
    """One baseline value a seed; empty where the claim has none."""
    judged: bool
    """False where the threshold was not made for this preset or data set: measured, not judged."""

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % confidence interval of the mean over seeds; None for one seed."""
        return half_width(self.values)

    @property
    def holds(self) -> bool:
        """Does the mean lie on the right side of the threshold, and of the baseline? NaN never does."""
        sign = 1 if self.claim.at_least else -1
        right_side = sign * self.mean >= sign * self.claim.threshold
        ahead = not self.baselines or sign * self.mean > sign * fmean(self.baselines)
        return right_side and ahead

    @property
    def word(self) -> str:
        """The verdict as the table prints it."""
        if not self.judged:
            return "measured"
        if self.holds:
            return "reproduced"
        return "not at this scale" if self.claim.expected == "not at this scale" else "FAILED"

    @property
    def as_expected(self) -> bool:
        return not self.judged or self.holds == (self.claim.expected == "reproduced")


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % confidence interval (Student's t) of the mean of `values`; None when there is only one."""
    if len(values) < 2:
        return None
    quantile = STUDENT_T[min(len(values) - 1, len(STUDENT_T)) - 1]
    return quantile * stdev(values) / math.sqrt(len(values))


def judge(claim: Claim, arms_by_seed: Mapping[int, Arms], *, judged: bool) -> Verdict:
    """Measure one claim on every seed."""
    values = tuple(float(claim.measure(arms)) for arms in arms_by_seed.values())
    baselines = tuple(float(claim.baseline(arms)) for arms in arms_by_seed.values()) if claim.baseline else ()
    return Verdict(claim, values, baselines, judged)


def shown(value: float, show: str) -> str:
    """A value as the tables print it: a share as per cent, a difference of shares as points, an error as a power."""
    if show == "percent":
        return f"{100 * value:.1f} %"
    if show == "points":
        return f"{100 * value:+.1f} points"
    if show == "error":
        return f"{value:.1e}"
    return f"{value:.3g}"


def shown_mean(verdict: Verdict) -> str:
    """The mean, with ± half of its interval where there are several seeds."""
    show = verdict.claim.show
    text = shown(verdict.mean, show)
    half = verdict.half_width
    if half is None or show == "error":
        return text
    return f"{text} ± {100 * half:.1f}" if show in ("percent", "points") else f"{text} ± {half:.2g}"


def row(verdict: Verdict) -> dict[str, str]:
    """One line of the claims table, for the terminal, the report and the README alike."""
    claim = verdict.claim
    baseline = ""
    if verdict.baselines:
        baseline = f"{shown(fmean(verdict.baselines), claim.show)} ({claim.baseline_name})"
    return {
        "kind": claim.kind,
        "claim": claim.sentence,
        "baseline": baseline or "–",
        "measured": shown_mean(verdict),
        "threshold": f"{'≥' if claim.at_least else '≤'} {shown(claim.threshold, claim.show)}"
        if verdict.judged
        else "–",
        "verdict": verdict.word,
    }
