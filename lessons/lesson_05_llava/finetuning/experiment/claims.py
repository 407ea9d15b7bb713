"""The claims of lesson 5's second part; each reads measurements of arms.py."""

from statistics import fmean

from shared.course.claims import difference, number, ratio
from shared.course.lesson import Claim, Measurements

WITHOUT_THE_SKILL = (
    "five of the six question types reach the accuracy of full fine-tuning; existence questions are learned later "
    "by low-rank adapters, and not within as many steps (the figure shows the types). A learning rate three times "
    "as high, tried with one seed, did not change it. In the papers the model has the skill before it is adapted; "
    "here it must be learned."
)


def accuracy_without_existence(measured: Measurements) -> float:
    """Return the mean accuracy of all question types except existence."""
    return fmean(measured[f"answers_{name}"] for name in ("color", "shape", "size", "texture", "place"))


def change(name: str):
    """Read the change of a measurement of the DPO arm through preference training."""
    return lambda arms: arms["dpo"][f"{name}_after"] - arms["dpo"][f"{name}_before"]


def against_full(name: str, method: str, source: str, sentence: str, reason: str) -> Claim:
    """Declare the claim that a method comes within two points of full fine-tuning."""
    return Claim(
        name,
        "paper",
        sentence,
        source,
        (method, "full fine-tuning"),
        difference(method, "full fine-tuning", "answers"),
        -0.02,
        "points",
        presets=("full",),
        expected="not reproduced",
        hypothesis=reason,
    )


CLAIMS = (
    against_full(
        "lora",
        "lora",
        "arXiv:2106.09685, table 2",
        "LoRA reaches the answer accuracy of full fine-tuning within two points (difference).",
        WITHOUT_THE_SKILL,
    ),
    Claim(
        "lora-without-existence",
        "paper",
        "LoRA against full fine-tuning, existence questions excluded (difference in answer accuracy).",
        "",
        ("lora", "full fine-tuning"),
        lambda arms: accuracy_without_existence(arms["lora"]) - accuracy_without_existence(arms["full fine-tuning"]),
        -0.02,
        "points",
        presets=(),
    ),
    against_full(
        "dora",
        "dora",
        "arXiv:2402.09353, table 4",
        "DoRA reaches the answer accuracy of full fine-tuning within two points (difference).",
        "as for LoRA.",
    ),
    against_full(
        "qlora",
        "qlora",
        "arXiv:2305.14314, table 3",
        "QLoRA with 4-bit base weights reaches the answer accuracy of full fine-tuning within two points (difference).",
        "as for LoRA.",
    ),
    Claim(
        "qlora-bytes",
        "paper",
        "QLoRA stores the weights in at most half of LoRA's bytes (fraction).",
        "arXiv:2305.14314, section 3",
        ("qlora", "lora"),
        ratio("qlora", "lora", "weight_bytes"),
        0.5,
        "percent",
        at_least=False,
        presets=("full",),
    ),
    Claim(
        "preferences-are-learned",
        "paper",
        "DPO raises the log-probability of patient over blunt answers on held-out scenes (change of the difference).",
        "arXiv:2305.18290, section 4",
        ("dpo",),
        number("dpo", "margin_gained"),
        5.0,
        "number",
        presets=("full",),
    ),
    Claim(
        "patience",
        "paper",
        "DPO raises the fraction of generated answers in the patient style (change).",
        "arXiv:2305.18290, section 4",
        ("dpo",),
        change("patient"),
        0.1,
        "points",
        presets=("full",),
    ),
    Claim(
        "still-right",
        "paper",
        "DPO costs at most five points of answer accuracy (change).",
        "arXiv:2404.19733",
        ("dpo",),
        change("right"),
        -0.05,
        "points",
        presets=("full",),
    ),
    Claim(
        "teacher-helps-student",
        "paper",
        (
            "A small decoder distilled from a large one has lower cross-entropy than one trained on text "
            "only (bits per byte)."
        ),
        "arXiv:1503.02531, section 2",
        ("student, distilled", "student, text only"),
        difference("student, text only", "student, distilled", "bits_per_byte"),
        0.05,
        "number",
        presets=("full",),
    ),
)
