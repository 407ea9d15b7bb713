"""Lesson 3's experiment: what `make lesson-3` trains, and the claims that it measures.

Each arm is trained in a process of its own, from the same frozen eye (lesson 2) and frozen language model (lesson 0); each
claim reads what the arms have measured on scenes whose combination of colour and shape nobody in the chain was trained on.
"""

from lessons.lesson_03_blip2.figures import CAPTIONS, draw
from shared.course.lesson import Arm, Claim, Lesson
from shared.course.measures import difference, number

ROOM = "lessons.lesson_03_blip2.arms"
PRESETS = ("smoke", "cpu", "full", "gpu")
SIZES = {
    "smoke": {"scenes": 80, "batch_size": 8, "held_out": 16},
    "cpu": {"scenes": 10_000},
    "full": {"scenes": 30_000},
    "gpu": {
        "scenes": 100_000,
        "things": (1, 3),
        "batch_size": 256,
        "queries": 16,
        "width": 256,
        "depth": 8,
        "learning_rate": 5e-3,
    },
}
STEPS = {"smoke": 3, "cpu": 600, "full": 2000, "gpu": 8000}
FIRST_STEPS = {"smoke": 3, "cpu": 250, "full": 500, "gpu": 3000}


def settings(**further: object) -> dict[str, dict]:
    """For every preset its sizes, its steps of the second stage, and what sets an arm apart."""
    return {preset: SIZES[preset] | {"steps": STEPS[preset]} | further for preset in PRESETS}


def with_first_stage() -> dict[str, dict]:
    return {preset: chosen | {"first_steps": FIRST_STEPS[preset]} for preset, chosen in settings().items()}


ARMS = (
    Arm("both stages", f"{ROOM}.bridges:train_bridge", with_first_stage()),
    Arm("stage 2 alone", f"{ROOM}.bridges:train_bridge", settings()),
    Arm("mean pooling", f"{ROOM}.bridges:train_bridge", settings(bridge="mean")),
    Arm("all patches", f"{ROOM}.bridges:train_bridge", settings(bridge="linear")),
    Arm(
        "told in words",
        f"{ROOM}.bridges:read_captions",
        {preset: {"held_out": 16} if preset == "smoke" else {} for preset in PRESETS},
    ),
    Arm("exact", f"{ROOM}.exact:check_mechanism", {preset: {} for preset in PRESETS}),
)


CLAIMS = (
    Claim(
        "masks-agree", "exact", "The three masks of the algebra are those spelled out in pure Python (pairs that differ).",
        "arXiv:2301.12597, figure 2", ("exact",), number("exact", "mask_difference"), 0.0, "error", at_least=False,
    ),
    Claim(
        "contrast-agrees", "exact",
        "The pure-Python first stage and the PyTorch one compare images and texts alike (largest difference, float64).",
        "reference.py", ("exact",), number("exact", "contrast_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "writing-agrees", "exact", "… and write alike (largest difference of logits, float64).",
        "reference.py", ("exact",), number("exact", "writing_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "frozen-stay", "exact", "Eye and language model have not moved by one bit (arms in which a hash has changed).",
        "arXiv:2301.12597, section 3", ("both stages",), number("both stages", "frozen_changed"), 0.0, "error", at_least=False,
    ),
    Claim(
        "answers", "learns", "It answers questions about held-out combinations, better than one who knows how often each answer comes.",
        "arXiv:2301.12597, section 4.3", ("both stages",), number("both stages", "answers"), 0.5,
        baseline=number("both stages", "answers_blind"), baseline_name="blind", presets=(),
    ),
    Claim(
        "captions", "learns", "Its captions of scenes with held-out combinations are true, thing for thing.",
        "arXiv:2301.12597, section 4.2", ("both stages",), number("both stages", "captions"), 0.3, presets=(),
    ),
    Claim(
        "retrieval", "learns", "After the first stage alone it finds the captions of held-out scenes (recall at 1).",
        "arXiv:2301.12597, section 4.4", ("both stages",), number("both stages", "retrieval"), 0.3,
        baseline=number("both stages", "retrieval_chance"), baseline_name="chance", presets=(),
    ),
    Claim(
        "first-stage-helps", "paper", "The first stage before the second beats the second alone at equal steps of the second (answers).",
        "arXiv:2301.12597, section 4.1", ("both stages", "stage 2 alone"), difference("both stages", "stage 2 alone", "answers"), 0.02,
        "points", presets=(),
    ),
    Claim(
        "queries-beat-the-mean", "paper", "Queries beat the mean of the patches (answers).",
        "arXiv:2301.12597, section 3.1", ("both stages", "mean pooling"), difference("both stages", "mean pooling", "answers"), 0.02,
        "points", presets=(),
    ),
    Claim(
        "few-queries-suffice", "paper", "A few queries come near the projection of all patches (answers, difference).",
        "arXiv:2301.12597, section 3.1", ("both stages", "all patches"), difference("both stages", "all patches", "answers"), -0.05,
        "points", presets=(),
    ),
)  # fmt: skip

LESSON = Lesson(
    number=3,
    arms=ARMS,
    claims=CLAIMS,
    headline="answers",
    headline_words="questions about held-out combinations answered",
    figures=draw,
    captions=CAPTIONS,
    data_sets=dict.fromkeys(PRESETS, "toybox"),
)
