"""The arms of lesson 7: the runs of the factorial design, the predicted recipe, and decoders on text alone."""

from typing import Any

from lessons.lesson_07_recipes.experiment.levels import ENCODER_ARMS
from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_07_recipes.experiment"
PRESETS = ("smoke", "cpu", "full", "gpu")
PREDICTED = "predicted recipe"
EASY = ("color", "size", "texture")
"""The question types of presets with little compute.

Chosen on validation scenes: with this compute, accuracy on shapes, places and existence stays near chance.
"""
LAB: dict[str, dict[str, Any]] = {
    "smoke": {"runs": 8, "budget": 1e9, "encoder_budget": 1e9, "scenes": 24, "held_out": 12, "batch_size": 4},
    "cpu": {
        "runs": 8,
        "budget": 2.5e11,
        "encoder_budget": 3e11,
        "scenes": 2000,
        "held_out": 480,
        "batch_size": 8,
        "learning_rate": 4e-3,
        "question_types": EASY,
    },
    "full": {"runs": 16, "budget": 6.5e11, "encoder_budget": 9e11, "scenes": 6000, "held_out": 480},
    "gpu": {"runs": 16, "budget": 2e13, "encoder_budget": 2e13, "scenes": 60_000, "held_out": 960, "batch_size": 64},
}
"""The settings of `LabSettings` in each preset."""
TEXT: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 3, "documents": 60, "held_out": 20, "batch_size": 4},
    "cpu": {"steps": 150, "documents": 1500, "held_out": 120},
    "full": {"steps": 500},
    "gpu": {"steps": 4000, "documents": 40_000, "held_out": 400, "batch_size": 64},
}
TUNING_STEPS = {"smoke": 1, "cpu": 15, "full": 50, "gpu": 400}
"""Steps on long windows: a tenth of the others."""


def text_arm(name: str, presets: tuple[str, ...] = PRESETS, arm: str | None = None, **changes: Any) -> Arm:
    """Return the arm that trains one decoder on text, in some presets."""
    settings = {preset: TEXT[preset] | {"arm": arm or name} | changes for preset in presets}
    return Arm(name, f"{PACKAGE}.language_models:train_language_model", settings)


DENSE = Arm(
    "dense",
    f"{PACKAGE}.language_models:train_language_model",
    {preset: TEXT[preset] | {"arm": "dense", "tuning_steps": TUNING_STEPS[preset]} for preset in PRESETS},
)

ARMS = (
    *(
        Arm(name, f"{PACKAGE}.train:train_runs", {preset: LAB[preset] | {"encoder": level} for preset in PRESETS})
        for level, name in reversed(ENCODER_ARMS.items())  # the longer one first
    ),
    DENSE,
    text_arm("latent"),
    text_arm("grouped", ("smoke", "full", "gpu")),
    text_arm("sparse"),
    text_arm("sparse latent", ("full", "gpu")),
    text_arm("large", ("full", "gpu")),
    text_arm("sparse without balance loss", ("smoke", "full", "gpu"), "sparse", balance_weight=0.0),
    Arm("exact", f"{PACKAGE}.exact:check_mechanism", {preset: {} for preset in PRESETS}),
    Arm(PREDICTED, f"{PACKAGE}.train:train_predicted", LAB, after=tuple(ENCODER_ARMS.values())),
)
