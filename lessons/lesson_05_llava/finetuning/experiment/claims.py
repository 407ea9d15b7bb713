"""The claims of lesson 5's second part; each reads measurements of arms.py."""

from statistics import fmean

from shared.course.claims import difference, number, ratio
from shared.course.lesson import Claim, Measurements, question

METHOD_NAMES = {"lora": "LoRA", "dora": "DoRA", "qlora": "QLoRA with 4-bit base weights"}
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


def against_full(method: str, source: str, hypothesis: str = "", paper_value: str = "") -> Claim:
    """Declare the claim that a method comes within two points of full fine-tuning.

    hypothesis   why it does not; without one the recorded interval is inconclusive
    paper_value  the publication's own difference, with its setting
    """
    return Claim(
        method,
        "paper",
        f"Accuracy on questions, {METHOD_NAMES[method]} − full fine-tuning.",
        source,
        (method, "full fine-tuning"),
        difference(method, "full fine-tuning", "answers"),
        -0.02,
        "points",
        presets=("full",),
        expected="not reproduced" if hypothesis else "inconclusive",
        hypothesis=hypothesis,
        paper_value=paper_value,
    )


CLAIMS = (
    *question(
        "Does LoRA match full fine-tuning?",
        against_full("lora", "arXiv:2106.09685, table 2", WITHOUT_THE_SKILL, "+0.8 points (RoBERTa-base, GLUE)"),
        Claim(
            "lora-without-existence",
            "paper",
            "Accuracy on questions without existence questions, LoRA − full fine-tuning.",
            "arXiv:2106.09685, table 2",
            ("lora", "full fine-tuning"),
            lambda arms: (
                accuracy_without_existence(arms["lora"]) - accuracy_without_existence(arms["full fine-tuning"])
            ),
            -0.02,
            "points",
            presets=(),
        ),
        against_full("dora", "arXiv:2402.09353, table 4", WITHOUT_THE_SKILL, "+1.1 points (LLaVA-1.5-7B)"),
        against_full("qlora", "arXiv:2305.14314, table 3"),
    ),
    *question(
        "What does QLoRA save?",
        Claim(
            "qlora-bytes",
            "paper",
            "Bytes of the weights, QLoRA / LoRA.",
            "arXiv:2305.14314, section 3",
            ("qlora", "lora"),
            ratio("qlora", "lora", "weight_bytes"),
            0.5,
            "percent",
            at_least=False,
            presets=("full",),
        ),
    ),
    *question(
        "Does DPO change the answer style?",
        Claim(
            "preferences-are-learned",
            "paper",
            "Log-probability of explained − direct answers on held-out scenes, change by DPO (nats).",
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
            "Fraction of generated answers in the explained style, change by DPO.",
            "arXiv:2305.18290, section 4",
            ("dpo",),
            change("patient"),
            0.1,
            "points",
            presets=("full",),
            expected="inconclusive",
        ),
        Claim(
            "still-right",
            "paper",
            "Accuracy of answers, change by DPO.",
            "arXiv:2404.19733",
            ("dpo",),
            change("right"),
            -0.05,
            "points",
            presets=("full",),
        ),
    ),
    *question(
        "Does distillation help a small decoder?",
        Claim(
            "teacher-helps-student",
            "paper",
            ("Cross-entropy of a small decoder, trained on text only − distilled from a large one (bits per byte)."),
            "arXiv:1503.02531, section 2",
            ("student, distilled", "student, text only"),
            difference("student, text only", "student, distilled", "bits_per_byte"),
            0.05,
            "number",
            presets=("full",),
        ),
    ),
)
