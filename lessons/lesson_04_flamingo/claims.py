"""What the lesson trains and claims.

Thresholds of what is learned are set by the first measurements over several seeds; until then `presets` is empty, and the
claim is measured and not judged.
"""

from shared.course.lesson import Arm, Arms, Claim
from shared.course.measures import difference, number

ROOM = "lessons.lesson_04_flamingo.arms"
PRESETS = ("smoke", "cpu", "full")
SIZES = {
    "smoke": {"steps": 2, "documents": 12, "shots": 2, "batch_size": 4, "held_out": 6},
    "cpu": {"steps": 400},
    "full": {"steps": 1200, "documents": 4000},
}


def settings(**further: object) -> dict[str, dict]:
    """For every preset its sizes, and what sets an arm apart."""
    return {preset: SIZES[preset] | further for preset in PRESETS}


ARMS = (
    Arm("flamingo", f"{ROOM}.few_shot:train_flamingo", settings()),
    Arm("without gates", f"{ROOM}.few_shot:train_flamingo", settings(gates="none")),
    Arm("language learns", f"{ROOM}.few_shot:train_flamingo", settings(language_learns=True)),
    Arm("exact", f"{ROOM}.exact:check_mechanism", {preset: {} for preset in PRESETS}),
)


def rise(arm: str, fewer: int, more: int):
    """Reads by how much accuracy on held-out rules rises from `fewer` examples to `more`."""

    def read(arms: Arms) -> float:
        return arms[arm][f"held_out_{more}"] - arms[arm][f"held_out_{fewer}"]

    return read


def forgotten(arm: str):
    """Reads how many bits more a token of text costs after the training than before."""

    def read(arms: Arms) -> float:
        return arms[arm]["text_bits_after"] - arms[arm]["text_bits_before"]

    return read


def saved(frozen: str, learning: str):
    """Reads how many bits a token of text the frozen language model forgets less."""
    less, more = forgotten(frozen), forgotten(learning)

    def read(arms: Arms) -> float:
        return more(arms) - less(arms)

    return read


CLAIMS = (
    Claim(
        "closed-gates", "exact", "With its gates at zero the model's logits are the language model's, to the bit (numbers that differ).",
        "arXiv:2204.14198, section 2.2", ("exact",), number("exact", "closed_gates_changed"), 0.0, "error", at_least=False,
    ),
    Claim(
        "reference-equals-model", "exact", "The pure-Python Flamingo and the PyTorch one give the same logits (largest difference).",
        "reference.py", ("exact",), number("exact", "logit_difference"), 1e-6, "error", at_least=False,
    ),
    Claim(
        "latest-image", "exact", "The segments of the mask say what the reference spells out: each word sees its latest image (pairs that differ).",
        "arXiv:2204.14198, section 2.3", ("exact",), number("exact", "mask_difference"), 0.0, "error", at_least=False,
    ),
    Claim(
        "latents-stay", "exact", "An image of 4, 16, 64 or 256 patches becomes equally many tokens (different counts).",
        "arXiv:2204.14198, section 2.1", ("exact",), number("exact", "latent_counts"), 1.0, "error", at_least=False,
    ),
    Claim(
        "frozen-stay", "exact", "Eye and language model have not moved by one bit (arms in which a hash has changed).",
        "arXiv:2204.14198, section 2.2", ("flamingo",), number("flamingo", "frozen_changed"), 0.0, "error", at_least=False,
    ),
    Claim(
        "four-shots", "learns", "After four examples it answers by a rule that it has never met, in images it has never seen.",
        "arXiv:2204.14198, section 3.1", ("flamingo",), number("flamingo", "held_out_4"), 0.3,
        baseline=number("flamingo", "held_out_0"), baseline_name="no examples", presets=(),
    ),
    Claim(
        "shots-help", "paper", "Accuracy rises with the number of examples: from none to one.",
        "arXiv:2204.14198, figure 2", ("flamingo",), rise("flamingo", 0, 1), 0.05, "points", presets=(),
    ),
    Claim(
        "more-shots-help", "paper", "… from one to four.",
        "arXiv:2204.14198, figure 2", ("flamingo",), rise("flamingo", 1, 4), 0.05, "points", presets=(),
    ),
    Claim(
        "many-shots", "paper", "… and from four to eight, more than it was ever trained with.",
        "arXiv:2204.14198, section 2.3", ("flamingo",), rise("flamingo", 4, 8), 0.0, "points", presets=(),
    ),
    Claim(
        "gates-help", "paper", "Tanh gates beat none (accuracy after four examples).",
        "arXiv:2204.14198, table 3 (iii)", ("flamingo", "without gates"), difference("flamingo", "without gates", "held_out_4"), 0.0,
        "points", presets=(),
    ),
    Claim(
        "frozen-forgets-less", "paper", "A frozen language model forgets less text than one that learns along (bits a token, difference).",
        "arXiv:2204.14198, table 3 (viii)", ("flamingo", "language learns"), saved("flamingo", "language learns"), 0.0, "number",
        presets=(),
    ),
)  # fmt: skip
