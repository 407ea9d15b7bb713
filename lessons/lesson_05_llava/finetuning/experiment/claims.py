"""The claims of lesson 5's second part; each reads measurements of arms.py."""

from statistics import fmean

from shared.course.claims import difference, number, ratio
from shared.course.lesson import Claim, Measurements, question

STYLE_ARM = "new answer style"
METHOD_NAMES = {"lora": "LoRA", "dora": "DoRA", "qlora": "QLoRA"}
SOURCES = {
    "lora": "arXiv:2106.09685, table 2",
    "dora": "arXiv:2402.09353, table 4",
    "qlora": "arXiv:2305.14314, table 3",
}
PAPER_VALUES = {
    "lora": "+0.8 points (RoBERTa-base, GLUE)",
    "dora": "+1.1 points (LLaVA-1.5-7B)",
    "qlora": "−1.1 to +1.0 points (ROUGE-L, T5 of 80 M to 11 B)",
}
WITHOUT_THE_SKILL = (
    "in the papers the model has the skill before it is adapted; here low-rank adapters must learn it, and existence "
    "questions come late (the figure shows the types). Test: adapt a model that has the skill (the next question)."
)


def accuracy_without_existence(measured: Measurements) -> float:
    """Return the mean accuracy of all question types except existence."""
    return fmean(measured[f"answers_{name}"] for name in ("color", "shape", "size", "texture", "place"))


def change(name: str):
    """Read the change of a measurement of the DPO arm through preference training."""
    return lambda arms: arms["dpo"][f"{name}_after"] - arms["dpo"][f"{name}_before"]


def new_skill(method: str, hypothesis: str = "") -> Claim:
    """Declare the claim that a method comes within two points of full fine-tuning when stage 2 teaches a new skill.

    hypothesis   why it does not; without one the recorded interval is inconclusive
    """
    return Claim(
        method,
        "paper",
        f"Accuracy on questions about unseen combinations after stage 2, {METHOD_NAMES[method]} − full fine-tuning.",
        SOURCES[method],
        (method, "full fine-tuning"),
        difference(method, "full fine-tuning", "answers"),
        -0.02,
        "points",
        presets=("full",),
        expected="not reproduced" if hypothesis else "inconclusive",
        hypothesis=hypothesis,
        paper_value=PAPER_VALUES[method],
    )


def new_style(method: str) -> Claim:
    """Declare the claim that a method comes within two points of full fine-tuning when the model has the skill."""
    return Claim(
        f"{method}-new-style",
        "paper",
        f"Accuracy of full-sentence answers, unseen combinations, {METHOD_NAMES[method]} − full fine-tuning.",
        SOURCES[method],
        (STYLE_ARM,),
        lambda arms: arms[STYLE_ARM][f"{method}_sentences"] - arms[STYLE_ARM]["full_sentences"],
        -0.02,
        "points",
        presets=("full",),
        paper_value=PAPER_VALUES[method],
    )


CLAIMS = (
    *question(
        "Does LoRA match full fine-tuning when stage 2 teaches a new skill?",
        new_skill("lora", WITHOUT_THE_SKILL),
        Claim(
            "lora-without-existence",
            "learns",
            "Accuracy on all questions but those of existence, unseen combinations, LoRA − full fine-tuning.",
            "arXiv:2106.09685, table 2",
            ("lora", "full fine-tuning"),
            lambda arms: (
                accuracy_without_existence(arms["lora"]) - accuracy_without_existence(arms["full fine-tuning"])
            ),
            -0.02,
            "points",
            presets=(),
        ),
        new_skill("dora", "the same as for LoRA."),
        new_skill("qlora"),
    ),
    *question(
        "Does LoRA match full fine-tuning when a model that has the skill is adapted?",
        Claim(
            "sentences",
            "learns",
            "Accuracy of full-sentence answers about unseen combinations after adaptation by LoRA.",
            "arXiv:2106.09685, section 1",
            (STYLE_ARM,),
            number(STYLE_ARM, "lora_sentences"),
            0.8,
            presets=("full",),
            baseline=number(STYLE_ARM, "sentences_before"),
            baseline_name="before adaptation",
        ),
        *map(new_style, METHOD_NAMES),
        Claim(
            "skill-is-kept",
            "learns",
            "Accuracy about unseen combinations, sentences after adaptation by LoRA − words before it.",
            "arXiv:2106.09685, section 1",
            (STYLE_ARM,),
            lambda arms: arms[STYLE_ARM]["lora_sentences"] - arms[STYLE_ARM]["words_before"],
            -0.05,
            "points",
            presets=("full",),
        ),
    ),
    *question(
        "What does QLoRA save?",
        Claim(
            "qlora-bytes",
            "paper",
            "Bytes of the language model's weights and adapters, QLoRA / LoRA.",
            "arXiv:2305.14314, section 3",
            ("qlora", "lora"),
            ratio("qlora", "lora", "weight_bytes"),
            0.5,
            "percent",
            at_least=False,
            presets=("full",),
            paper_value="26 % of 16-bit weights (4.127 bits each)",
        ),
    ),
    *question(
        "Does DPO change the answer style?",
        Claim(
            "preferences-are-learned",
            "learns",
            "Log-probability of patient − blunt answers about unseen combinations, change by DPO (nats).",
            "arXiv:2305.18290, section 4",
            ("dpo",),
            number("dpo", "margin_gained"),
            5.0,
            "number",
            presets=("full",),
        ),
        Claim(
            "patience",
            "learns",
            "Fraction of generated answers in the patient style, unseen combinations, change by DPO.",
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
            "learns",
            "Accuracy of generated answers about unseen combinations, change by DPO.",
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
            "learns",
            "Cross-entropy of a small decoder on new text, trained on text only − distilled (bits per byte).",
            "arXiv:1503.02531, section 2",
            ("student, distilled", "student, text only"),
            difference("student, text only", "student, distilled", "bits_per_byte"),
            0.05,
            "number",
            presets=("full",),
        ),
    ),
)
