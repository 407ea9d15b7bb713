"""The arms of lesson 5's first part: LLaVA, its blind baseline, and ablations of its stages, loss mask and features."""

from shared.course.lesson import Arm

PART = "llava"
PACKAGE = "lessons.lesson_05_llava.experiment"
TRAIN_LLAVA, TRAIN_LENGTHS = f"{PACKAGE}.train:train_llava", f"{PACKAGE}.train:train_lengths"
PRESETS = ("smoke", "cpu", "full")
SHORTEST, LONGEST = 50, 800
"""Steps of stage 2 at both ends of the sweep."""
SMOKE_SIZES = {"scenes": 24, "batch_size": 4, "held_out": 24}
# Scenes of one object, and the six question types that one object is enough for.
ONE_OBJECT = {"first_steps": 300, "second_steps": 500, "scenes": 8000, "objects": [1, 1]}
SIZES = {"smoke": SMOKE_SIZES | {"first_steps": 2, "second_steps": 2}, "cpu": ONE_OBJECT, "full": ONE_OBJECT}
SEVERAL_OBJECTS = {"first_steps": 300, "second_steps": 800, "scenes": 10_000, "objects": [1, 3]}
SWEEP = {
    "smoke": SMOKE_SIZES | {"first_steps": 2, "lengths": [SHORTEST // 50, 2]},
    "full": {"first_steps": 300, "lengths": [SHORTEST, 200, LONGEST], "scenes": 8000, "objects": [1, 1]},
}


def llava_settings(*presets: str, **changes: object) -> dict[str, dict]:
    """Return the settings of `train_llava` in some presets, with changes."""
    return {preset: SIZES[preset] | changes for preset in presets}


ARMS = (
    Arm("llava", TRAIN_LLAVA, llava_settings(*PRESETS), part=PART),
    Arm("blind", TRAIN_LLAVA, llava_settings(*PRESETS, use_image=False, first_steps=0), part=PART),
    Arm("exact", f"{PACKAGE}.exact:check_mechanism", {preset: {} for preset in PRESETS}, part=PART),
    Arm("stage 2 alone", TRAIN_LLAVA, llava_settings("smoke", "full", first_steps=0), part=PART),
    Arm("loss on prompts", TRAIN_LLAVA, llava_settings("smoke", "full", prompt_loss=True), part=PART),
    Arm("last layer", TRAIN_LLAVA, llava_settings("smoke", "full", feature_layer=-1), part=PART),
    Arm("several objects", TRAIN_LLAVA, {"full": SEVERAL_OBJECTS}, part=PART),
    Arm("lengths", TRAIN_LENGTHS, SWEEP, part=PART),
    Arm(
        "lengths, stage 2 alone",
        TRAIN_LENGTHS,
        {preset: settings | {"first_steps": 0} for preset, settings in SWEEP.items()},
        part=PART,
    ),
)
