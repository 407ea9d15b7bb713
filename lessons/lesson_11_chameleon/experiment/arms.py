"""The arms of lesson 11: the shipped model, designs × learning rates, image tokenizers, joint and separate training."""

from typing import Any

from lessons.lesson_11_chameleon.experiment.codebooks import SIZES
from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_11_chameleon.experiment"
PRESETS = ("smoke", "cpu", "full", "gpu")
LONG = ("smoke", "full", "gpu")
"""The presets that run every arm."""

# ── Image tokenizers ──────────────────────────────────────────────────────────────────────────────────────────────────

TOKENIZER: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 2, "scenes": 16, "batch_size": 4, "held_out": 8},
    "full": {"steps": 500, "scenes": 6000},
    "gpu": {"steps": 6000, "scenes": 20_000, "held_out": 1000},
}
FSQ_SIZES = (256, 4096)
TOKENIZERS: dict[str, dict[str, Any]] = {
    **{f"{size} codes": {"config": {"codebook_size": size}} for size in SIZES},
    **{f"FSQ, {size} codes": {"config": {"codebook_size": size, "quantizer": "fsq"}} for size in FSQ_SIZES},
    "no restart": {"config": {"codebook_size": 1024, "restart": 0.0}},
    "by gradient": {"config": {"codebook_size": 1024, "quantizer": "gradient"}},
    "4 × 4": {"config": {"codebook_size": 1024, "stages": 3}},
    "perceptual": {"config": {"codebook_size": 1024}, "perceptual": 0.1},
    "adversarial": {"config": {"codebook_size": 1024}, "perceptual": 0.1, "adversarial": 0.1},
}
"""Arm → what differs from an EMA codebook of 512 codes, 8 × 8 per image, trained on pixels."""

# ── Decoders ──────────────────────────────────────────────────────────────────────────────────────────────────────────

STABILITY: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 2, "documents": 16, "rates": (3e-3, 3e-2), "sizes": {"width": 16, "depth": 1, "mlp_dim": 32}},
    "cpu": {"steps": 80, "documents": 1200, "rates": (3e-3, 3e-2), "designs": ("plain", "QK-norm")},
    "full": {"steps": 80},
    "gpu": {"steps": 1000, "documents": 60_000, "batch_size": 64, "sizes": {"width": 256, "depth": 6, "mlp_dim": 688}},
}
STEPS = 300
"""Steps of the jointly trained decoder in `full`."""
DECODER: dict[str, dict[str, Any]] = {
    "smoke": {"steps": 2, "documents": 24, "batch_size": 4, "held_out": 8, "sizes": {"width": 16, "depth": 1}},
    "full": {"steps": STEPS, "documents": 32 * STEPS},
    "gpu": {"steps": 8000, "documents": 120_000, "held_out": 1000, "precision": "bfloat16"},
}
TASKS = {
    "joint": {"draw": 0.5, "caption": 0.2, "answer": 0.3},
    "drawing alone": {"draw": 1.0},
    "reading alone": {"caption": 0.4, "answer": 0.6},
}
"""Arm → its mixture. The two separate models have the joint model's parameters each, and half of its documents."""


def settings(sizes: dict[str, dict[str, Any]], *presets: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of some presets, with changes."""
    return {preset: sizes[preset] | changes for preset in presets}


def decoder_settings(arm: str) -> dict[str, dict[str, Any]]:
    """Return the settings of a decoder: the separate models get half of the steps and documents."""
    share = 1 if arm == "joint" else 2
    return {
        preset: values
        | {"mixture": TASKS[arm], "steps": values["steps"] // share, "documents": values["documents"] // share}
        for preset, values in DECODER.items()
    }


ARMS = (
    Arm(
        "shipped",
        f"{PACKAGE}.train:measure_shipped",
        {
            "smoke": {"held_out": 12},
            "cpu": {"held_out": 240},
            "full": {"held_out": 480},
            "gpu": {"held_out": 2000},
        },
    ),
    Arm("stability", f"{PACKAGE}.stability:sweep", settings(STABILITY, *PRESETS)),
    Arm("exact", f"{PACKAGE}.exact:check_mechanism", {preset: {} for preset in PRESETS}),
    *(Arm(name, f"{PACKAGE}.train:train_tasks", decoder_settings(name)) for name in TASKS),
    *(
        Arm(name, f"{PACKAGE}.codebooks:compare_tokenizer", settings(TOKENIZER, *LONG, **changes))
        for name, changes in TOKENIZERS.items()
    ),
)
