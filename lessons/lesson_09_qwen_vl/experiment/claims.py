"""The claims of lesson 9; each reads measurements of arms.py. Those on readers of clips are in clip_claims.py."""

from lessons.lesson_09_qwen_vl.experiment.clip_claims import CAUSES, LONGER, MROPE, SECONDS
from shared.course.claims import Measure, number
from shared.course.lesson import Claim, question
from shared.course.splits import on_splits

DYNAMIC, GROUNDING = "arXiv:2502.13923, section 2.1.2", "arXiv:2502.13923, section 2.2"


def recall_difference(rate: str, prefix: str = "") -> Measure:
    """Return a measure of the event recall of dynamic minus uniform sampling at equal mean tokens."""
    return lambda arms: arms["sampling"][f"{prefix}dynamic_{rate}"] - arms["sampling"][f"{prefix}uniform_{rate}"]


EXACT = tuple(
    Claim(name, "exact", sentence, source, ("exact",), number("exact", measured), limit, "error", at_least=False)
    for name, sentence, source, measured, limit in (
        (
            "largest-id",
            "Grids of tokens whose largest id is not max(T, H, W) − 1 in M-RoPE, or T·H·W − 1 with one axis.",
            MROPE,
            "id_mismatches",
            0.0,
        ),
        (
            "text-is-rotary",
            "M-RoPE angles of text tokens equal ordinary rotary angles (largest difference).",
            MROPE,
            "text_difference",
            0.0,
        ),
        (
            "only-differences-count",
            "Attention scores do not change when a constant is added to all ids of an axis (largest difference).",
            MROPE,
            "shift_difference",
            1e-9,
        ),
        (
            "windows-are-apart",
            "An image of two windows has the tokens of its windows encoded one by one (largest difference).",
            "arXiv:2502.13923, section 2.1.1",
            "window_difference",
            1e-6,
        ),
        (
            "boxes-round-trip",
            "Boxes written as text and parsed again are equal in all three generations (largest difference).",
            GROUNDING,
            "box_error",
            0.0,
        ),
        (
            "reference-equals-model",
            "The pure-Python rotation by three ids equals the PyTorch one (largest difference).",
            "reference.py",
            "reference_difference",
            1e-9,
        ),
    )
)

SAMPLING = question(
    "Does dynamic sampling find more events per token?",
    Claim(
        "recall-all-clips",
        "learns",
        "Events told apart at equal mean tokens, dynamic − uniform sampling; long clips have as many as short ones.",
        DYNAMIC,
        ("sampling",),
        recall_difference("1"),
        0.0,
        "points",
        expected="not reproduced",
        hypothesis="In these clips the number of events does not grow with the length, so short clips need as many "
        "frames as long ones. The next row tests clips whose number of events grows with the length.",
    ),
    Claim(
        "recall-steady-clips",
        "learns",
        "Events told apart at equal mean tokens, dynamic − uniform sampling; number of events grows with the length.",
        DYNAMIC,
        ("sampling",),
        recall_difference("1", "steady "),
        0.0,
        "points",
    ),
    Claim(
        "recall-dynamic",
        "learns",
        "Events told apart from sampled frames, dynamic sampling at one frame per second.",
        DYNAMIC,
        ("sampling",),
        number("sampling", "dynamic_1"),
        0.4,
        presets=(),
    ),
    *(
        Claim(
            f"recall-per-token-{name}",
            "learns",
            f"Events told apart per 100 visual tokens, {sentence}.",
            DYNAMIC,
            ("sampling",),
            number("sampling", f"{key}_per_100_tokens"),
            1.0,
            "number",
            presets=(),
        )
        for name, key, sentence in (
            ("dynamic", "dynamic_1", "dynamic sampling at one frame per second"),
            ("uniform", "uniform_1", "uniform sampling with as many tokens"),
            ("events", "events", "frames dense around the true events, an upper bound"),
        )
    ),
)

BOXES = question(
    "Are boxes written as JSON right?",
    Claim(
        "boxes-parse",
        "learns",
        "Generated texts that are exactly one box, unseen color–shape combinations.",
        GROUNDING,
        ("boxes",),
        number("boxes", "parsed"),
        0.95,
    ),
    Claim(
        "boxes-iou",
        "learns",
        "Mean IoU of generated boxes with the true ones, one object, unseen color–shape combinations.",
        GROUNDING,
        ("boxes",),
        number("boxes", "iou"),
        0.5,
        baseline=number("boxes", "blind_iou"),
        baseline_name="blind: the best constant box",
    ),
    Claim(
        "labels-strict",
        "learns",
        "Generated texts that are valid JSON with the requested label, unseen combinations.",
        GROUNDING,
        ("boxes",),
        number("boxes", "strict"),
        0.9,
        presets=(),
    ),
    Claim(
        "boxes-half",
        "learns",
        "Generated boxes with an IoU of at least 0.5, one object, unseen color–shape combinations.",
        GROUNDING,
        ("boxes",),
        number("boxes", "iou_half"),
        0.5,
        presets=(),
    ),
    Claim(
        "boxes-two-objects",
        "learns",
        "Mean IoU of generated boxes with the true ones, two objects per image, unseen combinations.",
        GROUNDING,
        ("boxes, two objects",),
        number("boxes, two objects", "iou"),
        0.4,
        baseline=number("boxes, two objects", "blind_iou"),
        baseline_name="blind: the best constant box",
        presets=("full",),
    ),
)

CLAIMS = on_splits((*EXACT, *LONGER, *CAUSES, *SECONDS, *SAMPLING, *BOXES))
