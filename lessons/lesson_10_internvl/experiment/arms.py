"""The arms of lesson 10: three orders of two corpora, V2PE, the router, preference optimization and the deployment."""

from typing import Any

from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_10_internvl.experiment"
CORPORA, POSITIONS = f"{PACKAGE}.train:train_corpora", f"{PACKAGE}.positions:train_positions"
PREFERENCES = f"{PACKAGE}.preferences:train_preferences"
PRESETS = ("smoke", "cpu", "full", "gpu")
WITHOUT_CPU = tuple(preset for preset in PRESETS if preset != "cpu")
ORDERS = {"mixed": "mixed", "multimodal only": "multimodal", "post-hoc": "post-hoc"}
"""Arm → order of the corpora."""
TESTED = (4, 16, 32)
"""Images of the tested sequences: the most of training, 4 times and 8 times as many."""
TEST_STEPS = (1.0, 0.25, 0.0625, 0.015625)
"""Values of δ at which the longest sequences are tested."""
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"tokens": 900, "images": 24, "texts": 8, "held_out": 12, "documents": 4, "episodes": 3},
    "cpu": {"tokens": 128_000, "images": 2400, "texts": 600, "held_out": 240, "documents": 100, "episodes": 60},
    "full": {"tokens": 480_000, "images": 8000, "texts": 2000},
    "gpu": {"tokens": 8_000_000, "images": 60_000, "texts": 30_000, "batch_size": 64, "objects": (1, 3)},
}
SMALL_READER = {"width": 32, "depth": 1, "heads": 2, "sequences": 12, "batch_size": 4, "held_out": 4}
LARGE_READER = {"width": 256, "depth": 6, "heads": 8, "sequences": 20_000, "batch_size": 64, "held_out": 1000}
READER: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 2, "tested": TESTED, "test_steps": TEST_STEPS} | SMALL_READER,
    "cpu": {"steps": 500, "tested": TESTED, "test_steps": TEST_STEPS, "sequences": 800, "held_out": 120},
    "full": {"steps": 900, "tested": TESTED, "test_steps": TEST_STEPS, "sequences": 3000},
    "gpu": {"steps": 4000, "tested": TESTED, "test_steps": TEST_STEPS, "precision": "bfloat16"} | LARGE_READER,
}
ROUTER: dict[str, dict[str, Any]] = {
    "smoke": {"consistency_steps": 2, "router_steps": 2, "images": 16, "held_out": 12},
    "full": {"consistency_steps": 60, "router_steps": 100},
    "gpu": {"consistency_steps": 400, "router_steps": 400, "images": 40_000, "batch_size": 32, "objects": (1, 3)},
}
PAIRS: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 2, "pairs": 16, "held_out": 12, "documents": 4, "episodes": 3},
    "full": {"steps": 150, "pairs": 1200},
    "gpu": {"steps": 600, "pairs": 20_000, "batch_size": 32, "objects": (1, 3)},
}


def settings(sizes: dict[str, dict[str, Any]], *presets: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of some presets, with changes."""
    return {preset: sizes[preset] | changes for preset in presets}


ARMS = (
    *(Arm(name, CORPORA, settings(SIZES, *PRESETS, order=order)) for name, order in ORDERS.items()),
    Arm("v2pe", POSITIONS, settings(READER, *PRESETS)),
    Arm("exact", f"{PACKAGE}.exact:check_mechanism", {preset: {} for preset in PRESETS}),
    Arm("fixed step", POSITIONS, settings(READER, *WITHOUT_CPU, steps_of_images="one")),
    Arm("router", f"{PACKAGE}.routing:train_router", settings(ROUTER, *WITHOUT_CPU), after=("mixed",)),
    Arm("mpo", PREFERENCES, settings(PAIRS, *WITHOUT_CPU), after=("mixed",)),
    Arm("fine-tuning", PREFERENCES, settings(PAIRS, *WITHOUT_CPU, weights=(0.0, 0.0, 1.0)), after=("mixed",)),
    # It starts when the trained arms have finished: it needs both cores for itself.
    Arm(
        "deployment",
        f"{PACKAGE}.deployment:measure_throughput",
        {
            "smoke": {"requests": 2, "rounds": 1, "width": 32, "depth": 1, "side": 4, "new_tokens": 3},
            "full": {"requests": 24, "rounds": 5},
            "gpu": {"requests": 24, "rounds": 5},
        },
        after=(*ORDERS, "v2pe"),
    ),
)
