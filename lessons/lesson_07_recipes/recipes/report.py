"""Write a recipe and its evidence as lines of text, at most 80 columns wide, that need no colors."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from lessons.lesson_07_recipes.recipes.evidence import Comparison, Confidence, PaperEvidence, Verdict, Vote
from lessons.lesson_07_recipes.recipes.picker import Recipe, size_text

WIDTH = 80
STYLES = {Confidence.HIGH: "green", Confidence.MEDIUM: "yellow", Confidence.LOW: "red"}
ANSWERS = {Vote.A: "no", Vote.B: "yes", Vote.NONE: "undecided"}
SIGNS = {Vote.A: "−", Vote.B: "+", Vote.NONE: "=", Vote.MIXED: "±"}
LEGEND = (
    "[answer, confidence] question. + the paper favors it, − it favors the opposite, = no difference beyond noise, "
    "± it finds both. Numbers: points, averaged over the benchmarks of one comparison, with the standard error over "
    "benchmarks in brackets; reported by the papers, not measured here."
)


@dataclass(frozen=True)
class Line:
    """One line of text, and its style in a terminal with colors."""

    text: str
    style: str = ""


def recipe_lines(recipe: Recipe, *, details: bool = False, width: int = WIDTH) -> list[Line]:
    """Return the recipe, axis by axis, with the papers' votes; with `details` also every comparison."""
    budget = recipe.budget
    parameters, images = size_text(budget.parameters), size_text(budget.images)
    title = f"Recipe for {parameters} parameters, {images} images, at most {budget.image_tokens} tokens per image"
    lines = [*_wrapped(title, width, style="bold"), Line("")]
    for recommendation in recipe.recommendations:
        lines += _wrapped(f"{recommendation.axis}: {recommendation.setting}", width, style="bold", indent="  ")
        if recommendation.reason:
            lines += _wrapped(recommendation.reason, width, first="  ", indent="  ")
        for result in recommendation.verdicts:
            lines += verdict_lines(result, details=details, width=width)
        lines.append(Line(""))
    lines += _wrapped(f"This recipe has {recipe.tokens:,} visual tokens per image.", width)
    return lines + _wrapped(LEGEND, width)


def verdict_lines(result: Verdict, *, details: bool = False, width: int = WIDTH) -> Iterator[Line]:
    """Yield the question, the answer with its confidence, and a line per paper."""
    answer = f"[{ANSWERS[result.favors]}, {result.confidence}{', papers disagree' * result.disagreement}]"
    yield from _wrapped(f"{answer} {result.choice.question}", width, "  ", "    ", STYLES[result.confidence])
    if result.caution:
        yield from _wrapped(f"confidence lowered: {result.caution}", width, "    ", "    ")
    for paper in result.papers:
        yield from _wrapped(paper_text(paper), width, "    ", "      ")
        if details:
            for comparison in paper.comparisons:
                yield from _wrapped(comparison_text(comparison), width, "        ", "          ")


def paper_text(paper: PaperEvidence) -> str:
    """Return a paper's vote, its effects in points, and what it states."""
    parts = [", ".join(map(effect_text, paper.comparisons))] if paper.comparisons else []
    if paper.statement and paper.statement.p_value is not None:
        parts.append(f"p = {paper.statement.p_value:g}")
    if paper.statement and (not paper.comparisons or paper.statement.p_value is not None):
        parts.append(paper.statement.statement)
    return f"{SIGNS[paper.vote]} {paper.paper}: {'; '.join(parts)}"


def effect_text(comparison: Comparison) -> str:
    """Return an effect in points, with its standard error over benchmarks where there are several."""
    error = comparison.standard_error
    text = f"{comparison.effect:+.1f}".replace("-", "−")
    return text if error is None else f"{text} ({error:.1f})"


def comparison_text(comparison: Comparison) -> str:
    """Return both settings of a comparison, its effect and its source."""
    first = comparison.rows[0]
    sources = ", ".join(dict.fromkeys(row.source for row in comparison.rows))
    benchmarks = f"{len(comparison.rows)} benchmarks" if len(comparison.rows) > 1 else first.benchmark
    note = f" Note: {first.note}." if first.note else ""
    settings = f"{first.setting_a} → {first.setting_b}: {effect_text(comparison)}, {benchmarks}"
    return f"{settings} (arXiv:{first.arxiv}, {sources}; {first.fixed}).{note}"


def _wrapped(text: str, width: int, first: str = "", indent: str = "", style: str = "") -> list[Line]:
    # An ASCII terminal shows → as -> and ± as +/-, which are up to two characters longer.
    lines = textwrap.wrap(text, width - 2, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    return [Line(line, style) for line in lines]
