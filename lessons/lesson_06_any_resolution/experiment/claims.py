"""The claims of lesson 6; each reads measurements of arms.py."""

from statistics import fmean

from lessons.lesson_06_any_resolution.experiment.arms import BUDGETS
from shared.course.claims import Measure, difference, number
from shared.course.lesson import Arms, Claim, question
from shared.course.splits import on_splits

RECEIPTS_128 = "receipt_128_digits"
PIX2STRUCT = "arXiv:2210.03347, section 2"
NAFLEX = "arXiv:2502.14786, section 2.4.2"
NAVIT_PACKING, NAVIT_POSITIONS = "arXiv:2307.06304, section 2.3", "arXiv:2307.06304, section 3.4"
UNSEEN = ("tall menu_128_digits", "wide menu_128_digits")


def at_budgets(arm: str, other: str, kind: str, budget: int) -> Measure:
    """Return a measure of an arm's accuracy of digits minus another arm's, at one token budget."""
    return difference(f"{arm}, all budgets", f"{other}, all budgets", f"{kind}_{budget}_digits")


def lost_at_unseen(scheme: str) -> Measure:
    """Return a measure of a scheme's accuracy on menus of seen aspect ratios minus that on taller and wider ones."""

    def read(arms: Arms) -> float:
        measured = arms[f"positions: {scheme}"]
        return measured["menu_128_digits"] - fmean(measured[name] for name in UNSEEN)

    return read


def unseen_difference(scheme: str, other: str) -> Measure:
    """Return a measure of a scheme's accuracy at unseen aspect ratios minus that of another."""

    def read(arms: Arms) -> float:
        one, two = (arms[f"positions: {name}"] for name in (scheme, other))
        return fmean(one[name] - two[name] for name in UNSEEN)

    return read


def gap_growth(arms: Arms) -> float:
    """Return native − square on receipts at the smallest budget, minus the same at the largest."""
    smallest, largest = (
        at_budgets("native", "square", "receipt", budget)(arms) for budget in (BUDGETS[0], BUDGETS[-1])
    )
    return smallest - largest


EXACT = (
    Claim(
        "packed-outputs",
        "exact",
        "Packed pages have the outputs of the same pages one by one (largest difference).",
        NAVIT_PACKING,
        ("exact",),
        number("exact", "output_difference"),
        1e-5,
        "error",
        at_least=False,
    ),
    Claim(
        "packed-gradients",
        "exact",
        "Packed pages give every weight the gradient of the same pages one by one (largest difference).",
        NAVIT_PACKING,
        ("exact",),
        number("exact", "gradient_difference"),
        1e-5,
        "error",
        at_least=False,
    ),
    Claim(
        "no-leak",
        "exact",
        "Largest gradient of an image's output with respect to the pixels of other images in its row.",
        "arXiv:2307.06304, section 2.1",
        ("exact",),
        number("exact", "leak"),
        0.0,
        "error",
        at_least=False,
    ),
    Claim(
        "reference-equals-model",
        "exact",
        "The pure-Python NaViT and the PyTorch one give the same logits (largest difference).",
        "reference.py",
        ("exact",),
        number("exact", "reference_difference"),
        1e-9,
        "error",
        at_least=False,
    ),
)

READING = question(
    "Does the native aspect ratio read small text better?",
    Claim(
        "native-reads",
        "learns",
        "Accuracy of digits on receipts of 7-pixel text, native aspect ratio, at most 128 tokens per page.",
        NAFLEX,
        ("native", "square"),
        number("native", RECEIPTS_128),
        0.9,
        baseline=number("square", RECEIPTS_128),
        baseline_name="square resizing",
    ),
    Claim(
        "native-beats-square",
        "paper",
        "Accuracy of digits on receipts of 7-pixel text at 128 tokens, native aspect ratio − square resizing.",
        PIX2STRUCT,
        ("native", "square"),
        difference("native", "square", RECEIPTS_128),
        0.10,
        "points",
    ),
    Claim(
        "native-square-unaligned",
        "paper",
        "Accuracy of digits at 128 tokens, receipts of any size in pixels, native aspect ratio − square resizing.",
        PIX2STRUCT,
        ("native, unaligned", "square, unaligned"),
        difference("native, unaligned", "square, unaligned", "unaligned receipt_128_digits"),
        0.0,
        "points",
        presets=(),
    ),
    Claim(
        "equal-tokens",
        "learns",
        "Tokens per receipt at a budget of 128, native aspect ratio − square resizing.",
        NAFLEX,
        ("native", "square"),
        difference("native", "square", "receipt_128_tokens"),
        0.0,
        "number",
        presets=(),
    ),
)

CURVE = question(
    "How do the gaps depend on the token budget?",
    *(
        Claim(
            f"native-square-{kind}-{budget}",
            "paper",
            f"Accuracy of digits on {kind}s at {budget} tokens, one model for all budgets, native − square.",
            PIX2STRUCT,
            ("native, all budgets", "square, all budgets"),
            at_budgets("native", "square", kind, budget),
            0.10,
            "points",
            presets=("full",) if (kind, budget) == ("receipt", 128) else (),
        )
        for kind in ("receipt", "chart")
        for budget in BUDGETS
    ),
    Claim(
        "gap-shrinks",
        "learns",
        "Accuracy of digits on receipts, native − square: the difference at 64 tokens minus that at 256.",
        PIX2STRUCT,
        ("native, all budgets", "square, all budgets"),
        gap_growth,
        0.0,
        "points",
        presets=(),
    ),
)

TILES = question(
    "Where are tiles between native and square?",
    *(
        Claim(
            f"{name}-receipt-{budget}",
            "learns",
            f"Accuracy of digits on receipts at {budget} tokens, one model for all budgets, {sentence}.",
            "arXiv:2408.03326, section 3.2",
            (f"{one}, all budgets", f"{other}, all budgets"),
            at_budgets(one, other, "receipt", budget),
            0.0,
            "points",
            presets=("full",) if (name, budget) == ("native-anyres", 128) else (),
        )
        for budget in BUDGETS
        for name, sentence, one, other in (
            ("native-anyres", "native − AnyRes tiles", "native", "anyres"),
            ("anyres-square", "AnyRes tiles − square", "anyres", "square"),
        )
    ),
)

PACKING = question(
    "What does packing save?",
    Claim(
        "packing-speed",
        "paper",
        "Patches per second of training in packed rows, divided by those in padded rows with the same images.",
        NAVIT_PACKING,
        ("packing",),
        number("packing", "speed_ratio"),
        1.5,
        "number",
    ),
    Claim(
        "packing-efficiency",
        "paper",
        "Tokens of packed rows that are patches: first fit, longest first, 1,000 photographs at random resolutions.",
        NAVIT_PACKING,
        ("packing",),
        number("packing", "first-fit-decreasing"),
        0.95,
        baseline=number("packing", "padded_efficiency"),
        baseline_name="padding",
        paper_value="98 % (less than 2 % padding)",
    ),
    Claim(
        "first-fit",
        "learns",
        "Tokens of packed rows that are patches: first fit in the order of arrival, the same photographs.",
        NAVIT_PACKING,
        ("packing",),
        number("packing", "first-fit"),
        0.9,
        presets=(),
    ),
    Claim(
        "padding-at-one-budget",
        "learns",
        "Tokens of padded rows that are patches when every photograph is resized to one budget of 256 patches.",
        NAFLEX,
        ("packing",),
        number("packing", "padded_efficiency_at_budget"),
        0.9,
        presets=(),
    ),
)

POSITIONS = question(
    "Which positions work at unseen aspect ratios?",
    *(
        Claim(
            f"unseen-{scheme}",
            "learns",
            f"Accuracy of digits on menus, seen aspect ratios (1:2 to 2:1) − unseen ones (to 5:1), {scheme} positions.",
            NAVIT_POSITIONS,
            (f"positions: {scheme}",),
            lost_at_unseen(scheme),
            0.05,
            "points",
            at_least=False,
            presets=(),
        )
        for scheme in ("learned", "factorized-absolute", "factorized-fractional", "rotary", "none")
    ),
    *(
        Claim(
            f"rotary-minus-{scheme}",
            "learns",
            f"Accuracy of digits on menus of unseen aspect ratios (to 5:1), 2-D rotary − {scheme} positions.",
            NAVIT_POSITIONS,
            ("positions: rotary", f"positions: {scheme}"),
            unseen_difference("rotary", scheme),
            0.0,
            "points",
            presets=(),
        )
        for scheme in ("learned", "factorized-absolute", "factorized-fractional", "none")
    ),
)

NO_DATA = dict.fromkeys(("packing-speed", "packing-efficiency", "first-fit", "padding-at-one-budget"), "")
CLAIMS = on_splits((*EXACT, *READING, *CURVE, *TILES, *PACKING, *POSITIONS), others=NO_DATA)
