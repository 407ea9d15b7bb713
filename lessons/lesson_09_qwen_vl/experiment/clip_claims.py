"""The claims of lesson 9 on readers of clips: longer clips than in training, and seconds at an unseen frame rate."""

from lessons.lesson_09_qwen_vl.experiment.arms import LENGTHS, RATES, SECONDS_FRAMES
from shared.course.claims import Measure, difference, number
from shared.course.lesson import Arms, Claim, question

MROPE, EXTRAPOLATION = "arXiv:2409.12191, section 2.1", "arXiv:2409.12191, section 3.3.2"
ABSOLUTE = "arXiv:2502.13923, section 2.1.3"
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


FACTORS = {2: LENGTHS[1], 4: LENGTHS[2]}
"""How many times longer than the longest clips of training, and the number of frames."""
LONGER = question(
    "Does M-RoPE lose less on longer clips than in training?",
    Claim(
        "trained-length",
        "learns",
        "Accuracy on new clips of five frames, the longest of training, M-RoPE.",
        MROPE,
        ("m-rope",),
        number("m-rope", at_frames(LENGTHS[0])),
        0.8,
        expected="inconclusive",
    ),
    *(
        Claim(
            f"less-lost-{factor}x",
            "paper",
            f"Accuracy lost from the longest clips of training to {factor} times as long ones, 1-D positions − M-RoPE.",
            EXTRAPOLATION,
            ("m-rope", "1-d"),
            less_lost(frames),
            0.0,
            "points",
            expected="inconclusive",
        )
        for factor, frames in FACTORS.items()
    ),
    *(
        Claim(
            f"longer-clips-{factor}x",
            "paper",
            f"Accuracy on clips {factor} times as long as the longest of training, M-RoPE − 1-D positions.",
            EXTRAPOLATION,
            ("m-rope", "1-d"),
            difference("m-rope", "1-d", at_frames(frames)),
            0.0,
            "points",
            expected="inconclusive",
        )
        for factor, frames in FACTORS.items()
    ),
)

CAUSES = question(
    "What does M-RoPE need on longer clips?",
    *(
        Claim(
            f"mrope-loss-{factor}x",
            "paper",
            f"Accuracy of M-RoPE on the longest clips of training − on clips {factor} times as long.",
            EXTRAPOLATION,
            ("m-rope",),
            lost("m-rope", frames),
            0.1,
            "points",
            at_least=False,
            presets=(),
            paper_value=QWEN2_LENGTHS if factor == 4 else "",
        )
        for factor, frames in FACTORS.items()
    ),
    Claim(
        "text-positions-4x",
        "learns",
        "Accuracy that M-RoPE loses on clips 4 times as long, language model from scratch − pretrained on long texts.",
        EXTRAPOLATION,
        ("m-rope", "m-rope, from scratch"),
        lambda arms: lost("m-rope, from scratch", LENGTHS[2])(arms) - lost("m-rope", LENGTHS[2])(arms),
        0.0,
        "points",
        presets=("full",),
    ),
    Claim(
        "scratch-less-lost-4x",
        "paper",
        "Accuracy lost on clips 4 times as long, language models from scratch, 1-D positions − M-RoPE.",
        EXTRAPOLATION,
        ("m-rope, from scratch", "1-d, from scratch"),
        lambda arms: lost("1-d, from scratch", LENGTHS[2])(arms) - lost("m-rope, from scratch", LENGTHS[2])(arms),
        0.0,
        "points",
        presets=(),
    ),
    Claim(
        "low-frequencies-4x",
        "paper",
        "Accuracy on clips 4 times as long as the longest of training, M-RoPE with low time frequencies − without.",
        "arXiv:2511.21631, section 2.1",
        ("m-rope", "m-rope, high frequencies"),
        difference("m-rope", "m-rope, high frequencies", at_frames(LENGTHS[2])),
        0.0,
        "points",
        presets=("full",),
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
    Claim(
        "seconds-at-trained-rates",
        "learns",
        "Seconds of a motion named exactly at one frame per second, as in training, absolute time − ids of frames.",
        ABSOLUTE,
        ("absolute time", "frame ids"),
        difference("absolute time", "frame ids", at_gap(RATES[0], "second")),
        0.0,
        "points",
        presets=(),
    ),
)
