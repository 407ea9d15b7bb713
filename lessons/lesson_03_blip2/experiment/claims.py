"""The claims of lesson 3; unseen combinations are color–shape pairs that no model of the chain was trained on."""

from collections.abc import Callable

from shared.course.claims import difference, number
from shared.course.lesson import Arms, Claim, question
from shared.course.splits import on_splits


def gain_from_stage_1(end: int) -> Callable[[Arms], float]:
    """Read the gain from stage 1 in accuracy on questions, with the fewest (0) or most (-1) pairs in stage 2.

    In preset `full` these are 50 and 10,000 pairs.
    """

    def gain(arms: Arms) -> float:
        counts = sorted(
            int(name.removeprefix("answers_"))
            for name in arms["pairs"]
            if name.removeprefix("answers_").isdigit() and name.startswith("answers_")
        )
        return difference("pairs", "pairs, stage 2 alone", f"answers_{counts[end]}")(arms)

    return gain


EXACT = (
    Claim(
        "masks-agree",
        "exact",
        "The three masks equal those written out in pure Python (mismatched entries).",
        "arXiv:2301.12597, figure 2",
        ("exact",),
        number("exact", "mask_difference"),
        0.0,
        "error",
        at_least=False,
    ),
    Claim(
        "contrast-agrees",
        "exact",
        "Contrastive scores of the pure-Python and the PyTorch first stage (largest difference, float64).",
        "reference.py",
        ("exact",),
        number("exact", "contrast_difference"),
        1e-9,
        "error",
        at_least=False,
    ),
    Claim(
        "generation-agrees",
        "exact",
        "Generation logits of the pure-Python and the PyTorch first stage (largest difference, float64).",
        "reference.py",
        ("exact",),
        number("exact", "generation_difference"),
        1e-9,
        "error",
        at_least=False,
    ),
    Claim(
        "frozen-weights-unchanged",
        "exact",
        "Training leaves vision encoder and language model unchanged (1 if a hash differs).",
        "arXiv:2301.12597, section 3",
        ("both stages",),
        number("both stages", "frozen_changed"),
        0.0,
        "error",
        at_least=False,
    ),
)

LEARNS = (
    *question(
        "Does BLIP-2 caption and answer?",
        Claim(
            "answers",
            "learns",
            "Accuracy on questions about unseen color–shape combinations, Q-Former with both stages.",
            "arXiv:2301.12597, section 4.3",
            ("both stages",),
            number("both stages", "answers"),
            0.5,
            baseline=number("both stages", "answers_blind"),
            baseline_name="blind",
        ),
        Claim(
            "captions-seen",
            "learns",
            "Correct captions (every object named) of new scenes with seen combinations, Q-Former with both stages.",
            "arXiv:2301.12597, section 4.2",
            ("both stages",),
            number("both stages", "seen_captions"),
            0.5,
        ),
        Claim(
            "captions-unseen",
            "learns",
            "Correct captions (every object named) of scenes with unseen combinations, Q-Former with both stages.",
            "arXiv:2301.12597, section 4.2",
            ("both stages", "mean pooling"),
            number("both stages", "captions"),
            0.05,
            baseline=number("mean pooling", "captions"),
            baseline_name="mean pooling",
        ),
        Claim(
            "text-only-upper-bound",
            "learns",
            "Upper bound: correct captions of unseen combinations by the same language model from the scene as text.",
            "",
            ("text-only upper bound",),
            number("text-only upper bound", "captions"),
            0.9,
        ),
        Claim(
            "retrieval",
            "learns",
            "Recall at 1 of full captions, for images of scenes with unseen combinations, after stage 1 alone.",
            "arXiv:2301.12597, section 4.4",
            ("both stages",),
            number("both stages", "retrieval"),
            0.6,
            baseline=number("both stages", "retrieval_chance"),
            baseline_name="chance",
        ),
    ),
)

PAPER = (
    *question(
        "Do the parts of BLIP-2 help?",
        Claim(
            "first-stage-helps",
            "paper",
            "Accuracy on questions about unseen combinations at equal steps of stage 2, with stage 1 − without.",
            "arXiv:2301.12597, section 4.1, figure 5",
            ("both stages", "stage 2 alone"),
            difference("both stages", "stage 2 alone", "answers"),
            0.15,
            "points",
            expected="not reproduced",
            paper_value="a substantial gain, as curves only (figure 5)",
            hypothesis="the pairs of stage 2 suffice to learn the alignment. Without stage 1, its loss soon is the "
            "same. Test: stage 2 on few pairs (the next question).",
        ),
        Claim(
            "queries-beat-mean-pooling",
            "learns",
            "Accuracy on questions about unseen combinations, Q-Former − mean pooling of the patches.",
            "arXiv:2301.12597, section 3.1",
            ("both stages", "mean pooling"),
            difference("both stages", "mean pooling", "answers"),
            0.1,
            "points",
        ),
        Claim(
            "few-queries-suffice",
            "learns",
            "Caption accuracy on new scenes with seen combinations, 8 queries − a linear projection of all 64 patches.",
            "arXiv:2301.12597, section 3.1",
            ("both stages", "all patches"),
            difference("both stages", "all patches", "seen_captions"),
            -0.05,
            "points",
        ),
        Claim(
            "queries-generalize",
            "learns",
            "Caption accuracy on unseen combinations, 8 queries − a linear projection of all 64 patches.",
            "arXiv:2301.12597, section 3.1",
            ("both stages", "all patches"),
            difference("both stages", "all patches", "captions"),
            -0.05,
            "points",
            expected="inconclusive",
        ),
    ),
    *question(
        "Does stage 1 help when stage 2 has few pairs?",
        Claim(
            "stage-1-at-50-pairs",
            "learns",
            "Accuracy on questions about unseen combinations after stage 2 on 50 pairs, with stage 1 − without.",
            "arXiv:2301.12597, section 4.1, figure 5",
            ("pairs", "pairs, stage 2 alone"),
            gain_from_stage_1(0),
            0.05,
            "points",
            presets=("full",),
        ),
        Claim(
            "stage-1-at-10000-pairs",
            "learns",
            "Accuracy on questions about unseen combinations after stage 2 on 10,000 pairs, with stage 1 − without.",
            "arXiv:2301.12597, section 4.1, figure 5",
            ("pairs", "pairs, stage 2 alone"),
            gain_from_stage_1(-1),
            0.0,
            "points",
            presets=(),
        ),
        Claim(
            "gain-falls-with-pairs",
            "learns",
            "Gain in accuracy from stage 1 at 50 pairs of stage 2, minus the gain at 10,000 pairs.",
            "arXiv:2301.12597, section 4.1, figure 5",
            ("pairs", "pairs, stage 2 alone"),
            lambda arms: gain_from_stage_1(0)(arms) - gain_from_stage_1(-1)(arms),
            0.05,
            "points",
            presets=("full",),
        ),
    ),
)

CLAIMS = on_splits(
    (*EXACT, *LEARNS, *PAPER), others={"captions-seen": "validation", "few-queries-suffice": "validation"}
)
