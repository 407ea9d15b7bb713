"""Weigh the published evidence on one design choice: a vote per paper, then a verdict with a stated confidence.

A comparison is two settings that a paper scores on some benchmarks. Its effect is the mean difference (b minus a) in
points. The effect counts when it is larger than the noise between runs *and* larger than its standard error over the
benchmarks. A paper that states a significance test votes as its test says; otherwise its comparisons vote.

Papers are never averaged with each other: their benchmarks, models and data differ.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from statistics import fmean, stdev

from lessons.lesson_07_recipes.recipes.choices import CHOICES, Choice
from lessons.lesson_07_recipes.recipes.table import AblationRow, Statement, Tables

ASSUMED_NOISE = 1.0
"""Points between repeated runs where a paper states none: the value of Idefics2, the one paper here that states it."""
STRONG = 2.0
"""A single paper is enough for medium confidence when its effects are this many times their uncertainty."""


class Vote(StrEnum):
    """What one paper favors: setting a, setting b, none beyond noise, or one or the other depending on the rest."""

    A = "a"
    B = "b"
    NONE = "none"
    MIXED = "mixed"


class Confidence(StrEnum):
    """How far a verdict can be trusted; `rank` orders the levels."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """0 for low, 1 for medium, 2 for high."""
        return list(Confidence).index(self)

    def lowered(self) -> "Confidence":
        """Return the next lower level."""
        return list(Confidence)[max(self.rank - 1, 0)]


@dataclass(frozen=True)
class Comparison:
    """Two settings of one choice in one paper, with a row per benchmark.

    noise  difference between repeated runs, in points
    """

    rows: tuple[AblationRow, ...]
    noise: float

    @cached_property
    def effect(self) -> float:
        """Mean over benchmarks of setting b minus setting a, in points."""
        return fmean(row.difference for row in self.rows)

    @cached_property
    def standard_error(self) -> float | None:
        """Standard error of the effect over benchmarks, in points; None for a single benchmark."""
        if len(self.rows) < 2:
            return None
        return stdev(row.difference for row in self.rows) / math.sqrt(len(self.rows))

    @property
    def ratio(self) -> float:
        """Size of the effect relative to its uncertainty: the larger of noise and standard error."""
        return abs(self.effect) / max(self.noise, self.standard_error or 0.0)

    @cached_property
    def vote(self) -> Vote:
        """The better setting, or none when the effect is within its uncertainty."""
        if self.ratio <= 1.0:
            return Vote.NONE
        return Vote.B if self.effect > 0 else Vote.A


@dataclass(frozen=True)
class PaperEvidence:
    """All that one paper reports on one choice."""

    paper: str
    comparisons: tuple[Comparison, ...]
    statement: Statement | None

    @cached_property
    def vote(self) -> Vote:
        """The vote of the paper: its significance test, else its comparisons, else its statement."""
        if self.statement and (self.statement.p_value is not None or not self.comparisons):
            return Vote(self.statement.favors)
        votes = {comparison.vote for comparison in self.comparisons} - {Vote.NONE}
        if len(votes) > 1:
            return Vote.MIXED
        return votes.pop() if votes else Vote.NONE

    @property
    def ratio(self) -> float:
        """The smallest ratio among the comparisons that decide the vote; 0 without one."""
        return min((each.ratio for each in self.comparisons if each.vote == self.vote), default=0.0)

    def covers(self, phase: str, lm_billions: float, factor: float) -> bool:
        """Return whether a comparison has this phase and a language model within `factor` times this size."""
        return any(
            row.phase == phase and lm_billions / factor <= row.lm_billions <= lm_billions * factor
            for comparison in self.comparisons
            for row in comparison.rows
        )


@dataclass(frozen=True)
class Verdict:
    """What the papers together say of one choice.

    favors      setting a or b, or none when as many papers say one as the other
    papers      the evidence of every paper, disagreement included
    caution     why the confidence is lower than the votes alone would make it
    """

    choice: Choice
    favors: Vote
    confidence: Confidence
    papers: tuple[PaperEvidence, ...]
    caution: str = ""

    def voting(self, *votes: Vote) -> tuple[PaperEvidence, ...]:
        """Return the papers with one of these votes."""
        return tuple(paper for paper in self.papers if paper.vote in votes)

    @property
    def disagreement(self) -> bool:
        """Whether some papers favor setting a and others setting b, or one paper finds both."""
        return bool(self.voting(Vote.MIXED)) or bool(self.voting(Vote.A) and self.voting(Vote.B))

    @property
    def setting(self) -> str:
        """The setting to take, "a" or "b": the favored one, or the cheaper one when the papers do not decide."""
        return self.choice.cheaper if self.favors == Vote.NONE else self.favors.value


def confidence_level(supporting: int, opposing: int, undecided: int, ratio: float) -> Confidence:
    """Return the confidence that a setting is better.

    supporting, opposing  papers that favor this setting, and the other one
    undecided             papers that find no difference, or find both
    ratio                 effect relative to uncertainty of the only supporting paper

    high    at least two papers support it, none opposes it, and fewer are undecided
    medium  at least two papers support it, fewer oppose it, and no more are undecided; or a single paper supports it
            with an effect of at least twice its uncertainty, and no other paper has compared the settings
    low     everything else
    """
    if supporting >= 2 and opposing == 0 and undecided < supporting:
        return Confidence.HIGH
    if supporting >= 2 and opposing < supporting and undecided <= supporting:
        return Confidence.MEDIUM
    if supporting == 1 and opposing == undecided == 0 and ratio >= STRONG:
        return Confidence.MEDIUM
    return Confidence.LOW


def comparisons_of(rows: Iterable[AblationRow], noise: float) -> tuple[Comparison, ...]:
    """Group rows by the settings that they compare."""
    groups: dict[tuple[str, str, str], list[AblationRow]] = {}
    for row in rows:
        groups.setdefault((row.setting_a, row.setting_b, row.fixed), []).append(row)
    return tuple(Comparison(tuple(group), noise) for group in groups.values())


def paper_evidence(tables: Tables, choice: str) -> tuple[PaperEvidence, ...]:
    """Return what each paper reports on a choice, in the order of the tables."""
    noise = {each.paper: each.points for each in tables.noise}
    evidence = []
    for paper in dict.fromkeys(row.paper for row in tables.rows):
        rows = [row for row in tables.rows if (row.paper, row.choice) == (paper, choice)]
        statement = next((each for each in tables.statements if (each.paper, each.choice) == (paper, choice)), None)
        if rows or statement:
            comparisons = comparisons_of(rows, noise.get(paper, ASSUMED_NOISE))
            evidence.append(PaperEvidence(paper, comparisons, statement))
    return tuple(evidence)


def verdict(tables: Tables, choice: str) -> Verdict:
    """Return the verdict on a choice. Raises ValueError for an unknown one."""
    if choice not in CHOICES:
        raise ValueError(f"no choice is called {choice!r}; expected one of {', '.join(CHOICES)}")
    return judge(CHOICES[choice], paper_evidence(tables, choice))


def judge(choice: Choice, papers: Sequence[PaperEvidence]) -> Verdict:
    """Count the papers' votes and state the confidence."""
    votes = [paper.vote for paper in papers]
    for_a, for_b = votes.count(Vote.A), votes.count(Vote.B)
    if for_a == for_b:
        return Verdict(choice, Vote.NONE, Confidence.LOW, tuple(papers))
    favors = Vote.B if for_b > for_a else Vote.A
    supporting = [paper for paper in papers if paper.vote == favors]
    level = confidence_level(
        len(supporting), min(for_a, for_b), len(papers) - for_a - for_b, supporting[0].ratio if supporting else 0.0
    )
    return Verdict(choice, favors, level, tuple(papers))
