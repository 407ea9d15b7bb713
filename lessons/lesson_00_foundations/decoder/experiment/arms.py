"""The arms of the part `decoder`."""

from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_00_foundations.decoder.experiment"
PART = "decoder"
PRESETS = ("smoke", "cpu", "full")

DECODER, MIXED, EXACT, SPEED = "decoder", "decoder, mixed rules", "decoder, exact", "decoder, speed"

TRAINING = {
    "smoke": {"steps": 4, "documents": 200, "batch_size": 4},
    "cpu": {"steps": 500, "documents": 24_000},
    "full": {"steps": 500, "documents": 24_000},
}
GENERATION = {name: {"width": 256, "depth": 6, "new_tokens": 8 if name == "smoke" else 160} for name in PRESETS}

ARMS = (
    Arm(DECODER, f"{PACKAGE}.train:train_decoder", TRAINING, part=PART),
    Arm(
        MIXED,
        f"{PACKAGE}.train:train_decoder",
        {name: settings | {"mixed": True} for name, settings in TRAINING.items()},
        part=PART,
    ),
    Arm(EXACT, f"{PACKAGE}.exact:check_decoder", {name: {} for name in PRESETS}, part=PART),
    Arm(SPEED, f"{PACKAGE}.speed:measure_speed", GENERATION, part=PART),
)
