"""State on which split of its data a claim's settings were chosen, and on which split it is measured."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from shared.course.lesson import Claim


def on_splits(
    claims: Iterable[Claim],
    *,
    chosen_on: str = "validation",
    measured_on: str = "test",
    others: Mapping[str, str] | None = None,
) -> tuple[Claim, ...]:
    """Return the claims with their splits.

    chosen_on    where the settings of all arms were chosen; "" when no split was set aside for that
    measured_on  where most claims are measured
    others       name of a claim → where it is measured instead; "" for a claim that reads no data

    Raises ValueError for a name that no claim has.
    """
    claims, others = tuple(claims), others or {}
    if unknown := sorted(others.keys() - {claim.name for claim in claims}):
        raise ValueError(f"no claim is called {', '.join(unknown)}")
    return tuple(
        replace(claim, chosen_on=chosen_on, measured_on=others.get(claim.name, measured_on)) for claim in claims
    )


def splits_line(claims: Iterable[Claim], contents: Mapping[str, str]) -> str:
    """Return one line for a page: on which splits settings were chosen, and how many claims are measured on each.

    contents  name of a split → what it holds, stated where the line names the split first

    Identities need no data and are left out. Without other claims the line is empty.
    """
    counts = Counter((claim.chosen_on, claim.measured_on) for claim in claims if claim.kind != "exact")
    described: set[str] = set()

    def describe(split: str, count: int | None = None) -> str:
        details = [contents[split]] if contents.get(split) and split not in described else []
        described.add(split)
        if count is not None:
            details.append(f"{count} {'claim' if count == 1 else 'claims'}")
        return f"{f'*{split}*' if split else 'no data'} ({'; '.join(details)})" if details else f"*{split}*"

    sentences = []
    for chosen in dict.fromkeys(chosen for chosen, _ in counts):
        where = f"Settings chosen on {describe(chosen)}" if chosen else "No split was set aside to choose settings"
        measured = [describe(split, count) for (other, split), count in counts.items() if other == chosen]
        listed = " and ".join(part for part in (", ".join(measured[:-1]), measured[-1]) if part)
        sentences.append(f"{where}; measured on {listed}.")
    return f"**Splits.** {' '.join(sentences)}" if sentences else ""
