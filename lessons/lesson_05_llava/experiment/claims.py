"""The claims of lesson 5's first part; each reads measurements of arms.py."""

from shared.course.claims import difference, number
from shared.course.lesson import Arms, Claim, question
from shared.course.splits import on_splits


def gain_from_stage_1(end: str):
    """Read the accuracy gain from stage 1 at one end of the sweep of stage 2's steps, "shortest" or "longest"."""
    return difference("lengths", "lengths, stage 2 alone", f"answers_{end}")


def gain_lost(arms: Arms) -> float:
    """Return the gain from stage 1 at the shortest stage 2 minus the gain at the longest."""
    return gain_from_stage_1("shortest")(arms) - gain_from_stage_1("longest")(arms)


EXACT = (
    Claim(
        "logits-agree",
        "exact",
        "The pure-Python LLaVA and the PyTorch one give the same logits (largest difference; angles are float32).",
        "reference.py",
        ("exact",),
        number("exact", "logit_difference"),
        1e-5,
        "error",
        at_least=False,
    ),
    Claim(
        "losses-agree",
        "exact",
        "The pure-Python LLaVA and the PyTorch one give the same loss on the answers (largest difference).",
        "reference.py",
        ("exact",),
        number("exact", "loss_difference"),
        1e-5,
        "error",
        at_least=False,
    ),
    Claim(
        "prompts-are-masked",
        "exact",
        "Largest gradient of logits that predict question, header or image tokens (0: they are not in the loss).",
        "arXiv:2304.08485, table 2",
        ("exact",),
        number("exact", "prompt_gradient"),
        0.0,
        "error",
        at_least=False,
    ),
    Claim(
        "encoder-is-frozen",
        "exact",
        "Training leaves the vision encoder unchanged (1 if its hash differs).",
        "arXiv:2304.08485, section 4.2",
        ("llava",),
        number("llava", "frozen_changed"),
        0.0,
        "error",
        at_least=False,
    ),
)

LEARNS = (
    *question(
        "Does LLaVA answer questions?",
        Claim(
            "answers",
            "learns",
            "Accuracy of LLaVA on questions about unseen combinations, mean over question types.",
            "arXiv:2304.08485, section 5.1",
            ("llava", "blind"),
            number("llava", "answers"),
            0.9,
            baseline=number("blind", "answers"),
            baseline_name="blind",
        ),
        Claim(
            "answers-seen",
            "learns",
            "Accuracy of LLaVA on questions about new scenes of seen combinations, mean over question types.",
            "arXiv:2304.08485, section 5.1",
            ("llava", "blind"),
            number("llava", "seen"),
            0.9,
            baseline=number("blind", "seen"),
            baseline_name="blind",
        ),
    ),
    *question(
        "Does it describe images?",
        Claim(
            "bleu",
            "learns",
            "BLEU-4 of LLaVA's descriptions of scenes with unseen combinations.",
            "shared/evaluation",
            ("llava", "blind"),
            number("llava", "bleu_4"),
            0.5,
            "number",
            baseline=number("blind", "bleu_4"),
            baseline_name="blind",
        ),
        Claim(
            "cider",
            "learns",
            "CIDEr of LLaVA's descriptions of scenes with unseen combinations.",
            "shared/evaluation",
            ("llava", "blind"),
            number("llava", "cider"),
            3.0,
            "number",
            baseline=number("blind", "cider"),
            baseline_name="blind",
        ),
        Claim(
            "rouge",
            "learns",
            "ROUGE-L of LLaVA's descriptions of scenes with unseen combinations.",
            "shared/evaluation",
            ("llava", "blind"),
            number("llava", "rouge_l"),
            0.7,
            "number",
            baseline=number("blind", "rouge_l"),
            baseline_name="blind",
        ),
    ),
    *question(
        "Does LLaVA answer questions?",
        Claim(
            "answers-several",
            "learns",
            "Accuracy of LLaVA on all twelve question types about scenes of one to three objects, unseen combinations.",
            "",
            ("several objects",),
            number("several objects", "answers"),
            0.5,
            baseline=number("several objects", "answers_commonest"),
            baseline_name="most common answers",
            presets=(),
        ),
    ),
)

PAPER = (
    *question(
        "Does stage 1 help?",
        Claim(
            "first-stage-helps",
            "paper",
            "Accuracy on questions about unseen combinations at equal steps of stage 2, both stages − stage 2 alone.",
            "arXiv:2304.08485, section 5.2",
            ("llava", "stage 2 alone"),
            difference("llava", "stage 2 alone", "answers"),
            0.02,
            "points",
            presets=("full",),
            expected="inconclusive",
            paper_value="+5.1 points (ScienceQA, 13B)",
        ),
        Claim(
            "short-stages-need-it",
            "learns",
            "Accuracy on questions about unseen combinations after 50 steps of stage 2, with stage 1 − without.",
            "arXiv:2304.08485, section 5.2",
            ("lengths", "lengths, stage 2 alone"),
            gain_from_stage_1("shortest"),
            0.05,
            "points",
            presets=("full",),
        ),
        Claim(
            "the-gap-closes",
            "paper",
            "Gain in accuracy from stage 1 at 50 steps of stage 2, minus the gain at 800 steps.",
            "arXiv:2402.07865, section 4.1",
            ("lengths", "lengths, stage 2 alone"),
            gain_lost,
            0.03,
            "points",
            presets=("full",),
            paper_value="stage 2 alone suffices (Prismatic VLMs, curves only)",
        ),
    ),
    *question(
        "What does the loss mask change?",
        Claim(
            "mask-matters",
            "learns",
            "CIDEr of descriptions of unseen combinations, loss on answers only − loss on all text.",
            "arXiv:2304.08485, table 2",
            ("llava", "loss on prompts"),
            difference("llava", "loss on prompts", "cider"),
            2.0,
            "number",
            presets=("full",),
        ),
        Claim(
            "mask-and-answers",
            "learns",
            "Accuracy on questions about unseen combinations, loss on answers only − loss on all text.",
            "arXiv:2304.08485, table 2",
            ("llava", "loss on prompts"),
            difference("llava", "loss on prompts", "answers"),
            0.0,
            "points",
            presets=(),
        ),
    ),
    *question(
        "Which features does LLaVA need?",
        Claim(
            "penultimate-layer",
            "paper",
            "Accuracy on questions about unseen combinations, features before the last block − after it.",
            "arXiv:2304.08485, section 5.2, table 8",
            ("llava", "last layer"),
            difference("llava", "last layer", "answers"),
            0.0,
            "points",
            presets=(),
            paper_value="+1.0 points (ScienceQA, 13B)",
        ),
    ),
)

CLAIMS = on_splits((*EXACT, *LEARNS, *PAPER), others={"answers-seen": "validation"})
