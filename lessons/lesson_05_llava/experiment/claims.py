"""The claims of lesson 5's first part; each reads measurements of arms.py."""

from lessons.lesson_05_llava.experiment.arms import LONGEST, SHORTEST
from shared.course.claims import difference, number
from shared.course.lesson import Arms, Claim


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
        "Logits that predict question, header or image tokens have no gradient (the largest).",
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
        "Training leaves the vision encoder unchanged to the bit (1 if its hash has changed).",
        "arXiv:2304.08485, section 4.2",
        ("llava",),
        number("llava", "frozen_changed"),
        0.0,
        "error",
        at_least=False,
    ),
)

LEARNS = (
    Claim(
        "answers",
        "learns",
        (
            "LLaVA answers questions about held-out combinations, averaged over question types, better "
            "than a blind baseline."
        ),
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
        "LLaVA answers questions about new scenes of seen combinations better than a blind baseline.",
        "arXiv:2304.08485, section 5.1",
        ("llava", "blind"),
        number("llava", "seen"),
        0.9,
        baseline=number("blind", "seen"),
        baseline_name="blind",
    ),
    Claim(
        "bleu",
        "learns",
        "Descriptions of held-out scenes match the true captions in BLEU-4 better than a blind baseline's.",
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
        "Descriptions of held-out scenes match the true captions in CIDEr better than a blind baseline's.",
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
        "Descriptions of held-out scenes match the true captions in ROUGE-L better than a blind baseline's.",
        "shared/evaluation",
        ("llava", "blind"),
        number("llava", "rouge_l"),
        0.7,
        "number",
        baseline=number("blind", "rouge_l"),
        baseline_name="blind",
    ),
    Claim(
        "answers-several",
        "learns",
        (
            "LLaVA answers all twelve question types about scenes of one to three objects better than the "
            "most common answers."
        ),
        "",
        ("several objects",),
        number("several objects", "answers"),
        0.5,
        baseline=number("several objects", "answers_commonest"),
        baseline_name="most common answers",
        presets=("full",),
    ),
)

PAPER = (
    Claim(
        "first-stage-helps",
        "paper",
        "Both stages beat stage 2 alone in answer accuracy (difference).",
        "arXiv:2304.08485, section 5.2",
        ("llava", "stage 2 alone"),
        difference("llava", "stage 2 alone", "answers"),
        0.02,
        "points",
        presets=("full",),
    ),
    Claim(
        "short-stages-need-it",
        "paper",
        f"Stage 1 raises answer accuracy when stage 2 has {SHORTEST} steps (difference).",
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
        f"The gain from stage 1 is larger at {SHORTEST} steps of stage 2 than at {LONGEST} (difference of gains).",
        "arXiv:2402.07865, section 4.1",
        ("lengths", "lengths, stage 2 alone"),
        gain_lost,
        0.03,
        "points",
        presets=("full",),
    ),
    Claim(
        "mask-matters",
        "paper",
        "Masking the prompt out of the loss raises the CIDEr of descriptions (difference to a loss on all text).",
        "arXiv:2304.08485, table 2",
        ("llava", "loss on prompts"),
        difference("llava", "loss on prompts", "cider"),
        2.0,
        "number",
        presets=("full",),
    ),
    Claim(
        "mask-and-answers",
        "paper",
        "Effect of masking the prompt on answer accuracy (difference to a loss on all text).",
        "",
        ("llava", "loss on prompts"),
        difference("llava", "loss on prompts", "answers"),
        0.0,
        "points",
        presets=(),
    ),
    Claim(
        "place-needs-scale",
        "paper",
        (
            "Scaling both feature layers to one size raises the accuracy of place questions (difference "
            "to unscaled features)."
        ),
        "",
        ("llava", "unscaled features"),
        difference("llava", "unscaled features", "answers_place"),
        0.1,
        "points",
        presets=("full",),
    ),
)

CLAIMS = (*EXACT, *LEARNS, *PAPER)
