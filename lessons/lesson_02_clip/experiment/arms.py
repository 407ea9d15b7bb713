"""What `make lesson-2` trains and measures: one entry per arm, with its settings in each preset."""

from typing import Any

from shared.course.lesson import Arm

EXPERIMENT = "lessons.lesson_02_clip.experiment"
TRAIN_CLIP = f"{EXPERIMENT}.train:train_clip"
# Number of pairs that are contrasted with each other, in the arms that compare the losses.
CONTRASTS = (2, 4, 8, 16, 32, 64)
SMALLEST, LARGEST = 4, CONTRASTS[-1]
SMOKE: dict[str, Any] = {"steps": 4, "scenes": 200}
# A third of the headline's steps: these arms are compared with each other only.
COMPARISON: dict[str, Any] = {"steps": 400}
# Scenes of one to five objects; the two arms differ in the loss only.
LOCATED: dict[str, Any] = {
    "steps": 600,
    "objects": [1, 5],
    "detail_fraction": 0.6,
    "architecture": {"position_scale": 0.5},
}


def contrast_arm(loss: str, contrast: int) -> Arm:
    """Return the arm of one loss and one number of contrasted pairs; pairs, steps and computation stay the same."""
    settings = {"loss": loss, "contrast": contrast}
    presets = {"full": COMPARISON | settings}
    if contrast == SMALLEST or (contrast == LARGEST and loss == "info-nce"):
        presets["cpu"] = COMPARISON | settings
    if contrast == SMALLEST:
        presets["smoke"] = SMOKE | settings
    return Arm(f"{loss}, {contrast} pairs", TRAIN_CLIP, presets, only_on="toybox")


ARMS = (
    Arm("clip", TRAIN_CLIP, {"smoke": SMOKE, "cpu": {"steps": 1000}, "full": {"steps": 1200}}, only_on="toybox"),
    *(contrast_arm(loss, contrast) for contrast in CONTRASTS for loss in ("info-nce", "sigmoid")),
    Arm("temperature 1", TRAIN_CLIP, {"full": COMPARISON | {"temperature": 1.0}}, only_on="toybox"),
    Arm("temperature 0.07", TRAIN_CLIP, {"full": COMPARISON | {"temperature": 0.07}}, only_on="toybox"),
    Arm("several objects", TRAIN_CLIP, {"full": {"steps": 1800, "objects": [1, 3]}}, only_on="toybox"),
    Arm(
        "with captions",
        TRAIN_CLIP,
        {"smoke": LOCATED | SMOKE | {"regions": 2}, "full": LOCATED | {"regions": 6}},
        only_on="toybox",
    ),
    Arm("without captions", TRAIN_CLIP, {"smoke": LOCATED | SMOKE, "full": LOCATED}, only_on="toybox"),
    Arm(
        "baselines",
        f"{EXPERIMENT}.evaluate:measure_baselines",
        {
            "smoke": {"scenes": 200, "epochs": 1},
            "cpu": {"scenes": 8000, "epochs": 8},
            "full": {"scenes": 16000, "epochs": 20},
        },
        only_on="toybox",
    ),
    Arm("exact", f"{EXPERIMENT}.exact:check_identities", {"smoke": {}, "cpu": {}, "full": {}, "gpu": {}}),
    Arm(
        "fashion-mnist",
        f"{EXPERIMENT}.fashion_mnist:train_fashion_mnist",
        {"smoke": {"steps": 3}, "cpu": {"steps": 600}, "full": {"steps": 2000}},
        only_on="fashion_mnist",
    ),
    Arm(
        "photographs",
        f"{EXPERIMENT}.flickr8k:train_flickr8k",
        {
            "gpu": {
                "steps": 3000,
                "batch_size": 1024,
                "image_size": 128,
                "precision": "bfloat16",
                "compiled": False,
                "architecture": {"patch_size": 8, "width": 384, "depth": 8},
            },
        },
        only_on="flickr8k",
    ),
)
