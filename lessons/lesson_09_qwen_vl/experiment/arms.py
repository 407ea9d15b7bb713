"""The arms of lesson 9: position ids on longer clips and at another frame rate, boxes as JSON, and frame sampling."""

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
SMOKE: dict[str, Any] = {"steps": 2, "clips": 24, "batch_size": 4, "held_out": 8, "width": 32, "depth": 1, "heads": 2}
# On a GPU: more clips and a wider model.
LARGE: dict[str, Any] = {
    "steps": 4000,
    "clips": 20_000,
    "batch_size": 64,
    "held_out": 1000,
    "width": 256,
    "depth": 6,
    "heads": 16,
    "precision": "bfloat16",
}


def lengths(positions: str, sections: tuple[int, int, int] = LOW_FREQUENCIES) -> dict[str, dict]:
    """Return the settings of a reader that is trained on short clips and tested on longer ones."""
    common = {
        "positions": positions,
        "sections": sections,
        "trained": [(frames, 1000) for frames in TRAINED_FRAMES],
        "tested": [(frames, 1000) for frames in LENGTHS],
    }
    sizes = {
        "smoke": SMOKE,
        "cpu": {"steps": 200, "clips": 400, "held_out": 200, "types": ("direction", "first color", "last color")},
        "full": {"steps": 1200, "clips": 2000, "held_out": 800},
        "gpu": LARGE,
    }
    return {preset: values | common for preset, values in sizes.items()}


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
        "full": {"steps": 1200, "clips": 3000, "held_out": 800},
        "gpu": LARGE,
    }
    return {preset: values | common for preset, values in sizes.items()}


def box_settings(*objects: int) -> dict[str, dict]:
    """Return the settings of a reader that writes boxes of images with these numbers of objects, in this order."""
    sizes = {
        "smoke": SMOKE,
        "cpu": {"steps": 300, "clips": 2500},
        "full": {"steps": 1000 * len(objects), "clips": 6000, "held_out": 400},
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
    Arm(
        "m-rope, high frequencies",
        READER,
        {name: values for name, values in lengths("m-rope", HIGH_FREQUENCIES).items() if name != "cpu"},
    ),
    Arm(
        "boxes, two objects",
        BOXES,
        {preset: values for preset, values in box_settings(1, 2).items() if preset != "cpu"},
    ),
)
