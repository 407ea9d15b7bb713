"""The claims of lesson 9; each reads measurements of arms.py."""

from lessons.lesson_09_qwen_vl.experiment.arms import LENGTHS, RATES, SECONDS_FRAMES
from shared.course.claims import Measure, difference, number
from shared.course.lesson import Arms, Claim, question
from shared.course.splits import on_splits

MROPE, EXTRAPOLATION = "arXiv:2409.12191, section 2.1", "arXiv:2409.12191, section 3.3.2"
DYNAMIC, ABSOLUTE = "arXiv:2502.13923, section 2.1.2", "arXiv:2502.13923, section 2.1.3"
GROUNDING = "arXiv:2502.13923, section 2.2"
UNSEEN_RATE = RATES[2]
QWEN2_LENGTHS = "no loss: 70 % at 16,000 tokens (the longest in training) and 71 % at 80,000 (72B, Video-MME, M-RoPE)"


def at_frames(frames: int, name: str = "all") -> str:
    """Return the name of a measurement on clips of some frames, one second apart."""
    return f"{frames}x1000_{name}"


def at_gap(gap: int, name: str) -> str:
    """Return the name of a measurement on clips at a frame rate."""
    return f"{SECONDS_FRAMES}x{gap}_{name}"


def lost(arm: str, frames: int) -> Measure:
    """Return a measure of the accuracy at the trained number of frames minus that at another."""

    def read(arms: Arms) -> float:
        return arms[arm][at_frames(LENGTHS[0])] - arms[arm][at_frames(frames)]

    return read


def less_lost(frames: int) -> Measure:
    """Return a measure of what one-dimensional positions lose at a number of frames, minus what M-RoPE loses."""
    return lambda arms: lost("1-d", frames)(arms) - lost("m-rope", frames)(arms)


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

LONGER = question(
    "Does M-RoPE read longer clips than it was trained on?",
    Claim(
        "trained-length",
        "learns",
        "Accuracy on new clips of five frames, the longest of training, M-RoPE.",
        MROPE,
        ("m-rope",),
        number("m-rope", at_frames(LENGTHS[0])),
        0.8,
    ),
    *(
        Claim(
            f"longer-clips-{factor}x",
            "paper",
            f"Accuracy on clips {factor} times as long as the longest of training, M-RoPE − one-dimensional positions.",
            EXTRAPOLATION,
            ("m-rope", "1-d"),
            difference("m-rope", "1-d", at_frames(factor * LENGTHS[0])),
            0.0,
            "points",
        )
        for factor in (2, 4)
    ),
    *(
        Claim(
            f"mrope-loss-{factor}x",
            "paper",
            f"Accuracy of M-RoPE on the longest clips of training − on clips {factor} times as long.",
            EXTRAPOLATION,
            ("m-rope",),
            lost("m-rope", factor * LENGTHS[0]),
            0.1,
            "points",
            at_least=False,
            presets=(),
            paper_value=QWEN2_LENGTHS if factor == 4 else "",
        )
        for factor in (2, 4)
    ),
    Claim(
        "low-frequencies-4x",
        "paper",
        "Accuracy on clips 4 times as long as the longest of training, M-RoPE with low time frequencies − without.",
        "arXiv:2511.21631, section 2.1",
        ("m-rope", "m-rope, high frequencies"),
        difference("m-rope", "m-rope, high frequencies", at_frames(LENGTHS[-1])),
        0.0,
        "points",
        presets=("full",),
    ),
    Claim(
        "less-lost-4x",
        "paper",
        "Accuracy lost from the longest clips of training to 4 times as long ones, one-dimensional positions − M-RoPE.",
        EXTRAPOLATION,
        ("m-rope", "1-d"),
        less_lost(LENGTHS[-1]),
        0.0,
        "points",
        presets=(),
    ),
)

SECONDS = question(
    "Which ids report seconds at a new frame rate?",
    Claim(
        "seconds-at-unseen-rate",
        "paper",
        "Seconds of a motion named exactly at an unseen frame rate, ids of absolute time − ids of frames.",
        ABSOLUTE,
        ("absolute time", "frame ids"),
        difference("absolute time", "frame ids", at_gap(UNSEEN_RATE, "second")),
        0.0,
        "points",
        presets=("full",),
    ),
    Claim(
        "absolute-time-seconds",
        "learns",
        "Seconds of a motion named exactly at an unseen frame rate, ids of absolute time.",
        ABSOLUTE,
        ("absolute time", "frame ids"),
        number("absolute time", at_gap(UNSEEN_RATE, "second")),
        0.5,
        baseline=number("frame ids", at_gap(UNSEEN_RATE, "second")),
        baseline_name="ids of frames",
        presets=("full",),
    ),
    *(
        Claim(
            f"seconds-error-{name}",
            "learns",
            f"Mean error of the reported second at an unseen frame rate, {sentence} (seconds).",
            ABSOLUTE,
            (arm,),
            number(arm, at_gap(UNSEEN_RATE, "error")),
            1.0,
            "number",
            at_least=False,
            presets=(),
        )
        for name, arm, sentence in (
            ("absolute", "absolute time", "ids of absolute time"),
            ("frames", "frame ids", "ids of frames"),
        )
    ),
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
        expected="inconclusive",
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

CLAIMS = on_splits((*EXACT, *LONGER, *SECONDS, *SAMPLING, *BOXES))
