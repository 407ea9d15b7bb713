"""Show verdicts: Markdown tables for pages, and a layout for terminals from 60 columns up.

Claims are grouped by the question that they answer. Exact claims, identities and bounds, take one line together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shared.course.claims import (
    MEASURED,
    Verdict,
    format_baseline,
    format_interval,
    format_mean,
    format_threshold,
    format_value,
    run_interval,
)

MAX_ROWS = 6
"""Rows of one question's table."""
QUESTION_OF_KIND = {"learns": "Does it learn?", "paper": "Do the paper's claims hold?"}
"""The question of claims that name none."""
COLUMNS = ("what is compared", "baseline", "measured", "paper reports", "verdict")
STYLES = {
    "reproduced": "green",
    "within": "green",
    "meets the threshold": "green",
    "not reproduced": "yellow",
    "inconclusive": "yellow",
    "outside": "yellow",
    "misses the threshold": "yellow",
    MEASURED: "dim",
}


@dataclass(frozen=True)
class Row:
    """A verdict, and the preset that it was measured with where that is not the page's first one."""

    verdict: Verdict
    preset: str = ""


def is_exact(verdict: Verdict) -> bool:
    """Return whether a verdict belongs to an exact claim, an identity or a bound, which has no table row."""
    return verdict.claim.kind == "exact"


def is_identity(verdict: Verdict) -> bool:
    """Return whether an exact claim states that two values are equal: their difference is printed, or must be zero."""
    return is_exact(verdict) and (verdict.claim.show == "error" or verdict.claim.threshold == 0)


def rows_of(verdicts_by_preset: Mapping[str, Sequence[Verdict]]) -> list[Row]:
    """Return one row per claim: a claim that several presets measured stands once, with the first preset's values."""
    first = next(iter(verdicts_by_preset), "")
    rows: dict[str, Row] = {}
    for preset, verdicts in verdicts_by_preset.items():
        for verdict in verdicts:
            earlier = rows.get(verdict.claim.name)
            # A preset whose threshold was calibrated takes the place of one that only measured.
            if earlier is None or (verdict.judged and not earlier.verdict.judged):
                rows[verdict.claim.name] = Row(verdict, "" if preset == first else preset)
    return list(rows.values())


def by_question(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows under their questions, in order; exact claims are left out."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        claim = row.verdict.claim
        if claim.kind != "exact":
            grouped.setdefault(claim.question or QUESTION_OF_KIND[claim.kind], []).append(row)
    return grouped


# ── Markdown ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def markdown_results(rows: Sequence[Row], command: str) -> str:
    """Return a table per question, then one line for all exact claims, which `command` lists."""
    blocks = []
    for question, group in by_question(rows).items():
        blocks.append(f"**{question}**")
        blocks.append(markdown_table(group))
        for row in group:
            if row.verdict.claim.hypothesis:
                claim = row.verdict.claim
                blocks.append(f"*Not reproduced:* {claim.sentence} *Hypothesis:* {claim.hypothesis}")
    if exact := [row.verdict for row in rows if is_exact(row.verdict)]:
        blocks.append(markdown_exact(exact, command))
    return "\n\n".join(blocks)


def markdown_table(rows: Sequence[Row], first_column: tuple[str, Sequence[str]] | None = None) -> str:
    """Return a table in Markdown, of one question's rows.

    first_column  a further column before the others: its heading, and its cell in each row
    """
    heading, first_cells = first_column or ("", [""] * len(rows))
    columns = (heading, *COLUMNS) if first_column else COLUMNS
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for first_cell, row in zip(first_cells, rows, strict=True):
        verdict, claim = row.verdict, row.verdict.claim
        preset = f" (`{row.preset}`)" if row.preset else ""
        label = f"{verdict.label} ({format_threshold(claim)})" if verdict.judged else "–"
        measured, paper = format_mean(verdict) + preset, claim.paper_value or "–"
        cells: tuple[str, ...] = (claim.sentence, format_baseline(verdict), measured, paper, label)
        cells = (first_cell, *cells) if first_column else cells
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def exact_line(verdicts: Sequence[Verdict], command: str) -> str:
    """Return one sentence: how many identities and bounds hold, and the identities' largest difference."""
    failed = [verdict.claim.name for verdict in verdicts if verdict.label != "reproduced"]
    identities = [verdict for verdict in verdicts if is_identity(verdict)]
    bounds = len(verdicts) - len(identities)
    if failed:
        return f"{len(failed)} of {len(verdicts)} {_exact_noun(identities, bounds)} do not hold: {', '.join(failed)}."
    errors = [verdict.mean for verdict in identities if verdict.claim.show == "error"]
    largest = f" (largest difference {format_value(max(errors), 'error')})" if errors else ""
    counts = (
        [f"{len(identities)} {'identity' if len(identities) == 1 else 'identities'}{largest}"] if identities else []
    )
    counts += [f"{bounds} {'bound' if bounds == 1 else 'bounds'}"] if bounds else []
    verb, pronoun = ("holds", "it") if len(verdicts) == 1 else ("hold", "them")
    return f"{' and '.join(counts)} {verb}; `{command}` lists {pronoun}."


def _exact_noun(identities: Sequence[Verdict], bounds: int) -> str:
    return " and ".join(["identities"] * bool(identities) + ["bounds"] * bool(bounds))


def markdown_exact(verdicts: Sequence[Verdict], command: str) -> str:
    """Return the line of identities and bounds, with a list that opens on request."""
    items = "\n".join(
        f"- {verdict.claim.sentence} {format_mean(verdict)} ({format_threshold(verdict.claim)})" for verdict in verdicts
    )
    line = exact_line(verdicts, command)
    identities = [verdict for verdict in verdicts if is_identity(verdict)]
    noun = _exact_noun(identities, len(verdicts) - len(identities))
    return f"{line}\n\n<details><summary>The {noun}</summary>\n\n{items}\n\n</details>"


# ── Terminal ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def terminal_results(verdicts: Sequence[Verdict]) -> Group:
    """Return the verdicts of a run for the terminal: a label beside each sentence, with the values under it."""
    blocks: list = []
    for question, group in by_question([Row(verdict) for verdict in verdicts]).items():
        blocks += [Text(question, style="bold"), Padding(_terminal_table([row.verdict for row in group]), (0, 0, 1, 0))]
    if exact := [verdict for verdict in verdicts if is_exact(verdict)]:
        blocks += [Text("Do the identities and bounds hold?", style="bold"), _terminal_table(exact)]
    return Group(*blocks)


def _terminal_table(verdicts: Sequence[Verdict]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=14, max_width=14)
    table.add_column(ratio=1)
    for verdict in verdicts:
        text = Text(verdict.claim.sentence + "\n")
        text.append("; ".join(value_phrases(verdict)), style="dim")
        table.add_row(Text(verdict.label, style=STYLES[verdict.label]), text)
    return table


def value_phrases(verdict: Verdict) -> list[str]:
    """Return what the terminal shows of a verdict: value, threshold, recorded runs, baseline and the paper's number."""
    claim = verdict.claim
    value = format_mean(verdict)
    phrases = [value if verdict.label == MEASURED else f"measured {value}"]
    if verdict.judged:
        phrases.append(f"threshold {format_threshold(claim)}")
    if verdict.recorded and claim.kind != "exact":
        phrases.append(f"recorded runs {format_interval(run_interval(verdict.recorded), claim.show)}")
    if verdict.baselines:
        phrases.append(f"baseline {format_value(fmean(verdict.baselines), claim.show)}, {claim.baseline_name}")
    if claim.paper_value:
        phrases.append(f"paper {claim.paper_value}")
    return phrases
