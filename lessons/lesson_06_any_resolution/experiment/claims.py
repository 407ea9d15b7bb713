"""The claims of lesson 6; each reads measurements of arms.py."""

from functools import partial
from statistics import fmean

from shared.course.claims import Measure, difference, number
from shared.course.lesson import Arms, Claim, question
from shared.course.splits import on_splits

RECEIPTS_128 = "receipt_128_digits"
PIX2STRUCT = "arXiv:2210.03347, section 5"
NAFLEX = "arXiv:2502.14786, section 2.4.2"
NAVIT_PACKING = "arXiv:2307.06304, section 2.3"
THIS_LESSON = "this lesson, README.md"
RANKS = {"smallest": 0, "middle": 1, "largest": 2}
"""Token budgets of a preset by their rank; `full` has 64, 128 and 256 tokens."""
UNSEEN = ("tall menu_128_digits", "wide menu_128_digits")


def value_at(arms: Arms, arm: str, kind: str, rank: str, name: str = "digits") -> float:
    """Return a measured value of an arm that was trained on all budgets, at one token budget of the preset."""
    measured = arms[f"{arm}, all budgets"]
    return measured[f"{kind}_{measured['recipe']['budgets'][RANKS[rank]]}_{name}"]


def at_rank(arm: str, other: str, kind: str, rank: str) -> Measure:
    """Return a measure of an arm's accuracy of digits minus another arm's, at one token budget of the preset."""
    return lambda arms: value_at(arms, arm, kind, rank) - value_at(arms, other, kind, rank)


def at_unseen(scheme: str) -> Measure:
    """Return a measure of a scheme's accuracy on menus that are taller and wider than those of the training."""
    return lambda arms: fmean(arms[f"positions: {scheme}"][name] for name in UNSEEN)


def unseen_difference(scheme: str, other: str) -> Measure:
    """Return a measure of a scheme's accuracy at unseen aspect ratios minus that of another."""
    return lambda arms: at_unseen(scheme)(arms) - at_unseen(other)(arms)


def gap_growth(arms: Arms) -> float:
    """Return native − square on receipts at the smallest budget, minus the same at the largest."""
    smallest, largest = (at_rank("native", "square", "receipt", rank)(arms) for rank in ("smallest", "largest"))
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
        "Largest gradient of the first image's output with respect to the pixels of other images in its row.",
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
        "Tokens per receipt at a budget of 128, native aspect ratio − square resizing (121 tokens).",
        NAFLEX,
        ("native", "square"),
        difference("native", "square", "receipt_128_tokens"),
        7.0,
        "number",
        at_least=False,
        presets=(),  # by construction at most 128 − 121
    ),
)

CURVE = question(
    "How do the gaps depend on the token budget?",
    *(
        Claim(
            f"native-square-{kind}-{rank}",
            "paper",
            f"Accuracy of digits on {kind}s at the {rank} budget, one model for all budgets, native − square.",
            PIX2STRUCT,
            ("native, all budgets", "square, all budgets"),
            at_rank("native", "square", kind, rank),
            0.10,
            "points",
            presets=("full",) if (kind, rank) == ("receipt", "middle") else (),
        )
        for kind in ("receipt", "chart")
        for rank in (RANKS if kind == "receipt" else ("smallest", "largest"))
    ),
    Claim(
        "gap-shrinks",
        "learns",
        "Native − square on receipts: the difference at the smallest budget minus that at the largest.",
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
            f"{name}-receipt-{rank}",
            "learns",
            f"Accuracy of digits on receipts at the {rank} budget, one model for all budgets, {sentence}.",
            "arXiv:2408.03326, section 3.2",
            (f"{one}, all budgets", f"{other}, all budgets"),
            at_rank(one, other, "receipt", rank),
            0.0,
            "points",
            presets=("full",) if (name, rank) == ("native-anyres", "middle") else (),
        )
        for rank in RANKS
        for name, sentence, one, other in (
            ("native-anyres", "native − AnyRes tiles", "native", "anyres"),
            ("anyres-square", "AnyRes tiles − square", "anyres", "square"),
        )
    ),
)

TOKENS = question(
    "How many tokens do the three ways of resizing use?",
    *(
        Claim(
            f"tokens-{arm}",
            "learns",
            f"Tokens per receipt at the middle budget (128 in `full`), {name}.",
            THIS_LESSON,
            (f"{arm}, all budgets",),
            partial(value_at, arm=arm, kind="receipt", rank="middle", name="tokens"),
            128.0,  # the budget of `full`; not judged: no preset gives these rows a verdict
            "number",
            at_least=False,
            presets=(),
        )
        for arm, name in (("native", "native"), ("square", "square"), ("anyres", "AnyRes tiles"))
    ),
)

PACKING = question(
    "What does packing save?",
    Claim(
        "packing-speed",
        "learns",
        "Patches per second, forward and backward pass, batches of 32 images: packed rows / padded rows.",
        NAVIT_PACKING,
        ("packing",),
        number("packing", "speed_ratio"),
        1.5,
        "number",
    ),
    Claim(
        "packing-efficiency",
        "learns",
        "Tokens of packed rows that are patches: first-fit decreasing, 1,000 synthetic sizes with COCO's quantiles.",
        NAVIT_PACKING,
        ("packing",),
        number("packing", "first-fit-decreasing"),
        0.95,
        baseline=number("packing", "padded_efficiency"),
        baseline_name="padding",
    ),
    Claim(
        "first-fit",
        "paper",
        "Tokens of packed rows that are patches: first fit in the order of arrival, the same image sizes.",
        NAVIT_PACKING,
        ("packing",),
        number("packing", "first-fit"),
        0.9,
        presets=(),
        paper_value="> 98 % (resolutions and row length chosen for it)",
    ),
    Claim(
        "padding-at-one-budget",
        "learns",
        "Tokens of padded rows that are patches when every image is resized to one budget of 256 patches.",
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
            f"Accuracy of digits on menus of unseen aspect ratios (to 5:1), {scheme} positions.",
            THIS_LESSON,
            (f"positions: {scheme}",),
            at_unseen(scheme),
            0.9,  # not calibrated, and not judged: no preset gives these rows a verdict
            baseline=number(f"positions: {scheme}", "menu_128_digits"),
            baseline_name="aspect ratios of the training (1:2 to 2:1)",
            presets=(),
        )
        for scheme in ("learned", "factorized-absolute", "factorized-fractional", "rotary", "none")
    ),
)

ROTARY = question(
    "Does 2-D rotary read unseen aspect ratios better than the other schemes?",
    *(
        Claim(
            f"rotary-minus-{scheme}",
            "learns",
            f"Accuracy of digits on menus of unseen aspect ratios (to 5:1), 2-D rotary − {scheme} positions.",
            THIS_LESSON,
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
CLAIMS = on_splits((*EXACT, *READING, *CURVE, *TILES, *TOKENS, *PACKING, *POSITIONS, *ROTARY), others=NO_DATA)
