"""The arms of lesson 6: readers of small text by resizing, budget and position scheme, and packing against padding."""

from typing import Any

from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_06_any_resolution.experiment"
READER = f"{PACKAGE}.train:train_reader"
PRESETS = ("smoke", "cpu", "full", "gpu")
BUDGETS = (64, 128, 256)
RESIZINGS = ("native", "square", "anyres")
SCHEMES = ("learned", "factorized-absolute", "factorized-fractional", "rotary", "none")
SMOKE: dict[str, Any] = {"steps": 2, "batch_size": 6, "test_pages": 24}
# Pages eight times as large, so that 1,024 patches of 8 × 8 pixels are one receipt at its own size.
LARGE: dict[str, Any] = {
    "area": 65_536,
    "width": 256,
    "depth": 6,
    "heads": 8,
    "batch_size": 128,
    "learning_rate": 5e-3,
    "precision": "bfloat16",
}


def receipts(resizing: str) -> dict[str, dict]:
    """Return the settings of a reader of receipts at 128 tokens, in every preset on two cores."""
    settings = {"smoke": SMOKE, "cpu": {"steps": 300}, "full": {"steps": 300}}
    return {preset: values | {"resizing": resizing} for preset, values in settings.items()}


def unaligned(resizing: str) -> dict[str, dict]:
    """Return the settings of a reader of receipts whose sides are no multiples of a patch."""
    kinds = {"kinds": ("unaligned receipt",)}
    return {preset: settings | kinds for preset, settings in receipts(resizing).items() if preset != "cpu"}


def budgets(resizing: str) -> dict[str, dict]:
    """Return the settings of a reader of receipts and charts at three token budgets."""
    settings = {
        "smoke": SMOKE | {"budgets": BUDGETS},
        "full": {"steps": 700, "test_pages": 200, "budgets": BUDGETS},
        "gpu": LARGE | {"steps": 3000, "budgets": (256, 512, 1024)},
    }
    return {
        preset: values | {"resizing": resizing, "kinds": ("receipt", "chart")} for preset, values in settings.items()
    }


def menus(positions: str) -> dict[str, dict]:
    """Return the settings of a reader of menus between 1:2 and 2:1, which is tested on taller and on wider ones."""
    common = {"kinds": ("menu",), "test_kinds": ("tall menu", "wide menu"), "positions": positions}
    return {preset: values | common for preset, values in {"smoke": SMOKE, "full": {"steps": 350}}.items()}


ARMS = (
    Arm("native", READER, receipts("native")),
    Arm("square", READER, receipts("square")),
    Arm(
        "packing",
        f"{PACKAGE}.throughput:measure_packing",
        {
            "smoke": {"images": 40, "batch_size": 8, "rounds": 1, "width": 32, "depth": 1},
            "cpu": {"images": 1000, "batch_size": 32, "rounds": 5},
            "full": {"images": 1000, "batch_size": 32, "rounds": 5},
            "gpu": {"images": 1000, "batch_size": 256, "rounds": 20, "width": 768, "depth": 12},
        },
    ),
    Arm("exact", f"{PACKAGE}.exact:check_mechanism", {preset: {} for preset in PRESETS}),
    *(Arm(f"{resizing}, unaligned", READER, unaligned(resizing)) for resizing in ("native", "square")),
    *(Arm(f"{resizing}, all budgets", READER, budgets(resizing)) for resizing in RESIZINGS),
    *(Arm(f"positions: {scheme}", READER, menus(scheme)) for scheme in SCHEMES),
)
