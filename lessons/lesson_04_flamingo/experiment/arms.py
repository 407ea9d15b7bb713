"""The arms of lesson 4: what is trained and measured, with the settings of each preset."""

from typing import Any

from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_04_flamingo.experiment"
TRAIN = f"{PACKAGE}.train:train_flamingo"
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {
        "steps": 2,
        "scenes": 30,
        "documents": 12,
        "batch_size": 4,
        "held_out": 6,
        "test_scenes": 20,
        "text_documents": 3,
    },
    "cpu": {"steps": 160},
    "full": {"steps": 800, "scenes": 12000, "documents": 12000},
    "gpu": {
        "steps": 4000,
        "scenes": 60000,
        "documents": 60000,
        "batch_size": 96,
        "latents": 16,
        "depth": 4,
        "held_out": 2000,
        "learning_rate": 1e-2,
        "precision": "bfloat16",
    },
}
MAIN_PRESETS = ("smoke", "cpu", "full")


def presets(*names: str, **settings: object) -> dict[str, dict[str, Any]]:
    """Return for some presets their sizes, and the settings of the arm."""
    return {preset: SIZES[preset] | settings for preset in names}


ARMS = (
    Arm("flamingo", TRAIN, presets(*SIZES)),
    Arm("without gates", TRAIN, presets(*MAIN_PRESETS, gates="none")),
    Arm("trained language model", TRAIN, presets(*MAIN_PRESETS, train_language_model=True)),
    Arm("scalar gates", TRAIN, presets("full", gates="scalar")),
    Arm("without text", TRAIN, presets("full", text_rows=0)),
    Arm("exact", f"{PACKAGE}.evaluate:check_against_reference", {preset: {} for preset in SIZES}),
)
