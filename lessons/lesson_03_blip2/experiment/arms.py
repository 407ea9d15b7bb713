"""The arms of lesson 3: what is trained and measured, with the settings of each preset.

Each arm runs in its own process, from the same frozen vision encoder (lesson 2) and language model (lesson 0).
"""

from typing import Any

from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_03_blip2.experiment"
PRESETS = ("smoke", "cpu", "full", "gpu")
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"scenes": 80, "batch_size": 8, "held_out": 16},
    "cpu": {"scenes": 10_000},
    "full": {"scenes": 30_000},
    "gpu": {
        "scenes": 100_000,
        "objects": (1, 3),
        "batch_size": 256,
        "queries": 16,
        "width": 256,
        "depth": 8,
    },
}
STEPS = {"smoke": 3, "cpu": 600, "full": 2000, "gpu": 8000}
PAIR_COUNTS = (50, 200, 1000, 10_000)
"""Numbers of image–text pairs in the second stage, half captions and half questions."""
FIRST_STAGE_STEPS = {"smoke": 3, "cpu": 250, "full": 500, "gpu": 3000}


LEARNING_RATES = {"qformer": 1e-2, "linear": 4e-2, "mean": 6e-2}
"""Learning rate of stage 2 for each connector: the best caption accuracy on validation scenes, one run per rate.

Tried were 5e-3 and 1e-2 for the Q-Former, 5e-3, 2e-2 and 4e-2 for all patches, 5e-3, 2e-2 and 6e-2 for the mean. One
linear layer needs a larger rate than a Q-Former: at 5e-3 it is trained too little.
"""
LARGE_QFORMER_RATE = 5e-3
"""Learning rate of stage 2 for the Q-Former of `gpu`."""


def presets(**settings: object) -> dict[str, dict[str, Any]]:
    """Return for every preset its sizes, steps and learning rate, and the settings of the arm."""
    connector = str(settings.get("connector", "qformer"))
    rates = dict.fromkeys(PRESETS, LEARNING_RATES[connector])
    if connector == "qformer":
        rates["gpu"] = LARGE_QFORMER_RATE
    return {
        preset: SIZES[preset] | {"steps": STEPS[preset], "learning_rate": rates[preset]} | settings
        for preset in PRESETS
    }


def presets_with_first_stage() -> dict[str, dict[str, Any]]:
    """Return for every preset its sizes, and the steps of both stages."""
    return {
        preset: settings | {"first_stage_steps": FIRST_STAGE_STEPS[preset]} for preset, settings in presets().items()
    }


def presets_with_pair_counts(*, first_stage: bool) -> dict[str, dict[str, Any]]:
    """Return the settings of the arms that train stage 2 on several numbers of pairs, for equally many steps each."""
    smoke, full = SIZES["smoke"] | {"steps": 2, "pair_counts": [4, 8]}, {"scenes": 10_000, "steps": 600}
    settings = {
        "smoke": smoke,
        "full": full | {"learning_rate": LEARNING_RATES["qformer"], "pair_counts": list(PAIR_COUNTS)},
    }
    steps = {"smoke": 2, "full": 250} if first_stage else {"smoke": 0, "full": 0}
    return {preset: values | {"first_stage_steps": steps[preset]} for preset, values in settings.items()}


ARMS = (
    Arm("both stages", f"{PACKAGE}.train:train_connector", presets_with_first_stage()),
    Arm("stage 2 alone", f"{PACKAGE}.train:train_connector", presets()),
    Arm("mean pooling", f"{PACKAGE}.train:train_connector", presets(connector="mean")),
    Arm("all patches", f"{PACKAGE}.train:train_connector", presets(connector="linear")),
    Arm("pairs", f"{PACKAGE}.pair_counts:train_pair_counts", presets_with_pair_counts(first_stage=True)),
    Arm(
        "pairs, stage 2 alone",
        f"{PACKAGE}.pair_counts:train_pair_counts",
        presets_with_pair_counts(first_stage=False),
    ),
    Arm(
        "text-only upper bound",
        f"{PACKAGE}.evaluate:measure_text_upper_bound",
        {preset: {"held_out": 16} if preset == "smoke" else {} for preset in PRESETS},
    ),
    Arm("exact", f"{PACKAGE}.evaluate:check_against_reference", {preset: {} for preset in PRESETS}),
)
