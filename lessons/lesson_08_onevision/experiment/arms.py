"""The arms of lesson 8: one model for all types of input, image-trained models, three specialists, a blind baseline.

All trained arms start from lesson 5's assistant and have equally many steps.
"""

from typing import Any

from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_08_onevision.experiment"
TRAIN = f"{PACKAGE}.train:train_onevision"
PRESETS = ("smoke", "cpu", "full", "gpu")
ALL_TYPES = {"image": 47, "images": 33, "video": 20}
"""The paper's mix, in percent of the examples (section 5)."""
IMAGES_ONLY = {"image": 47, "images": 53}
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"first_steps": 2, "mix_steps": 3, "batch_size": 2, "held_out": 24},
    "cpu": {"first_steps": 20, "mix_steps": 180, "held_out": 400},
    "full": {"first_steps": 60, "mix_steps": 600, "held_out": 800},
    "gpu": {"first_steps": 200, "mix_steps": 2800, "batch_size": 32, "stories": 20_000, "held_out": 1600},
}


def settings(*presets: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of `train_onevision` in some presets, with changes."""
    return {preset: SIZES[preset] | changes for preset in presets}


def specialist(kind: str, *presets: str) -> Arm:
    """Return the arm that is trained on one type of input in both stages."""
    return Arm(f"{kind} specialist", TRAIN, settings(*presets, first={kind: 1}, mix={kind: 1}))


WITHOUT_CPU = tuple(preset for preset in PRESETS if preset != "cpu")
ARMS = (
    Arm("onevision", TRAIN, settings(*PRESETS, mix=ALL_TYPES)),
    Arm("image + images", TRAIN, settings(*PRESETS, mix=IMAGES_ONLY)),
    Arm("image + one frame", TRAIN, settings(*PRESETS, mix=IMAGES_ONLY, one_frame=True)),
    Arm("blind", TRAIN, settings(*PRESETS, mix=ALL_TYPES, use_visuals=False)),
    Arm("exact", f"{PACKAGE}.exact:check_mechanism", {preset: {} for preset in PRESETS}),
    specialist("image", *WITHOUT_CPU),
    specialist("images", *WITHOUT_CPU),
    specialist("video", *WITHOUT_CPU),
)
