"""The arms of lesson 9: position ids on longer clips and at another frame rate, boxes as JSON, and frame sampling."""

from collections.abc import Mapping
from typing import Any

from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_09_qwen_vl.experiment"
READER, BOXES = f"{PACKAGE}.train:train_reader", f"{PACKAGE}.train:train_boxes"
PRESETS = ("smoke", "cpu", "full", "gpu")
TRAINED_FRAMES = (3, 4, 5)
"""Frames of the training clips: several lengths, because with a single one every distance is learned by heart."""
LENGTHS = (5, 10, 20)
"""Frames of the tested clips: the longest of training, 2 times and 4 times as many."""
RATES = (1000, 500, 750)
"""Milliseconds between two frames: two rates of training, and one between them that is only tested."""
SECONDS_FRAMES = 6
LOW_FREQUENCIES, HIGH_FREQUENCIES = (4, 2, 2), (2, 3, 3)
"""Rotary pairs for time, row and column. With two pairs, as few in proportion as in Qwen2-VL, time has the two highest
frequencies only; with four it also has two lower ones."""
SMOKE: dict[str, Any] = {"steps": 2, "clips": 24, "batch_size": 4, "held_out": 8}
# On a GPU: more clips and steps.
LARGE: dict[str, Any] = {
    "steps": 4000,
    "clips": 20_000,
    "batch_size": 64,
    "held_out": 1000,
    "precision": "bfloat16",
}
SCRATCH: dict[str, Any] = {"sizes": {"width": 64, "depth": 3, "heads": 4}}
"""A language model from scratch: it has no text in which it could have seen the ids of longer clips."""


def lengths(
    positions: str, sections: tuple[int, int, int] = LOW_FREQUENCIES, changes: Mapping[str, Any] | None = None
) -> dict[str, dict]:
    """Return the settings of a reader that is trained on short clips and tested on longer ones, with some changes."""
    common = {
        "positions": positions,
        "sections": sections,
        "trained": [(frames, 1000) for frames in TRAINED_FRAMES],
        "tested": [(frames, 1000) for frames in LENGTHS],
    }
    sizes = {
        "smoke": SMOKE,
        "cpu": {"steps": 300, "clips": 400, "held_out": 200, "types": ("direction", "first color", "last color")},
        "full": {"steps": 600, "clips": 2000, "held_out": 800},
        "gpu": LARGE,
    }
    return {preset: values | common | dict(changes or {}) for preset, values in sizes.items()}


def without_cpu(settings: Mapping[str, dict]) -> dict[str, dict]:
    """Return settings without those of the preset `cpu`."""
    return {preset: values for preset, values in settings.items() if preset != "cpu"}


def seconds(positions: str) -> dict[str, dict]:
    """Return the settings of a reader that reports seconds, trained at two frame rates and tested at a third."""
    common = {
        "positions": positions,
        "types": ("second", "direction"),
        "trained": [(SECONDS_FRAMES, gap) for gap in RATES[:2]],
        "tested": [(SECONDS_FRAMES, gap) for gap in RATES],
        "sections": LOW_FREQUENCIES,
    }
    sizes = {
        "smoke": SMOKE,
        "full": {"steps": 600, "clips": 3000, "held_out": 800},
        "gpu": LARGE,
    }
    return {preset: values | common for preset, values in sizes.items()}


def box_settings(*objects: int) -> dict[str, dict]:
    """Return the settings of a reader that writes boxes of images with these numbers of objects, in this order."""
    sizes = {
        "smoke": SMOKE,
        "cpu": {"steps": 240, "clips": 2500},
        "full": {"steps": 500 * len(objects), "clips": 6000, "held_out": 400},
        "gpu": LARGE,
    }
    return {preset: {"objects": objects} | values for preset, values in sizes.items()}


ARMS = (
    Arm("m-rope", READER, lengths("m-rope")),
    Arm("1-d", READER, lengths("1-d")),
    Arm("boxes", BOXES, box_settings(1)),
    Arm(
        "sampling",
        f"{PACKAGE}.frame_sampling:measure_sampling",
        {"smoke": {"clips": 40}, "cpu": {"clips": 400}, "full": {"clips": 1000}, "gpu": {"clips": 4000}},
    ),
    Arm("exact", f"{PACKAGE}.exact:check_mechanism", {preset: {} for preset in PRESETS}),
    Arm("absolute time", READER, seconds("absolute")),
    Arm("frame ids", READER, seconds("frames")),
    Arm("m-rope, high frequencies", READER, without_cpu(lengths("m-rope", HIGH_FREQUENCIES))),
    Arm("m-rope, from scratch", READER, without_cpu(lengths("m-rope", changes=SCRATCH))),
    Arm("1-d, from scratch", READER, without_cpu(lengths("1-d", changes=SCRATCH))),
    Arm("boxes, two objects", BOXES, without_cpu(box_settings(1, 2))),
)
