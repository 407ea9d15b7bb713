"""What `make lesson-1` trains and measures: one entry per arm, with its settings in each preset."""

from typing import Any

from shared.course.lesson import Arm

EXPERIMENT = "lessons.lesson_01_vit.experiment"
CLASSIFIER, ORDER = f"{EXPERIMENT}.train:train_classifier", f"{EXPERIMENT}.train:train_order_detector"
FEW_LABELS, DISTILLED = f"{EXPERIMENT}.few_labels:train_from_few_labels", f"{EXPERIMENT}.few_labels:train_distilled"
BASELINES = f"{EXPERIMENT}.evaluate:measure_baselines"
LABELS_PER_CLASS = 5
LABELS_PER_CLASS_DISTILLED = 10

LARGE_ARCHITECTURE = {
    "patch_size": 4,
    "width": 384,
    "depth": 12,
    "heads": 6,
    "mlp_dim": 1536,
    "positions": "rotary",
    "registers": 4,
    "pooling": "mean",
    "drop_path": 0.1,
}


def classifier(**settings: Any) -> dict[str, dict]:
    """Return the settings of a digit classifier in each preset."""
    return {"smoke": {"steps": 12} | settings, "cpu": {"steps": 1400} | settings, "full": {"steps": 1400} | settings}


def order(**settings: Any) -> dict[str, dict]:
    """Return the settings of a detector of shuffled patches in each preset."""
    return {"smoke": {"steps": 12} | settings, "cpu": {"steps": 250} | settings, "full": {"steps": 250} | settings}


def few_labels(mask_ratio: float | None = None) -> dict[str, dict]:
    """Return the settings of training from few labels, after masked pretraining if a mask ratio is given."""
    presets: dict[str, dict] = {"smoke": {"steps": 6}, "full": {"steps": 400}}
    for preset, steps in (("smoke", 6), ("full", 2000)):
        presets[preset]["per_class"] = LABELS_PER_CLASS
        if mask_ratio is not None:
            presets[preset]["pretraining"] = {"mask_ratio": mask_ratio, "steps": steps}
    return presets


def distilled(**settings: Any) -> dict[str, dict]:
    """Return the settings of distillation from a teacher with few labels."""
    common = {"per_class": LABELS_PER_CLASS_DISTILLED} | settings
    return {"smoke": {"steps": 6, "teacher_steps": 6} | common, "full": {"steps": 600, "teacher_steps": 300} | common}


def without(name: str, presets: dict[str, dict]) -> dict[str, dict]:
    """Return the presets' settings without the setting `name`."""
    return {preset: {key: settings[key] for key in settings if key != name} for preset, settings in presets.items()}


def large() -> dict[str, dict]:
    """Return the settings of the large classifier: on a GPU, and a few steps of a small one as a test."""
    smoke: dict[str, Any] = {
        "steps": 6,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "precision": "float32",
        "compiled": False,
    }
    gpu: dict[str, Any] = {
        "steps": 20_000,
        "batch_size": 1024,
        "learning_rate": 2e-3,
        "precision": "bfloat16",
        "compiled": True,
    }
    return {
        "smoke": smoke | {"architecture": {"positions": "rotary", "registers": 4, "pooling": "mean"}},
        "gpu": gpu | {"architecture": LARGE_ARCHITECTURE},
    }


def every_preset(**settings: Any) -> dict[str, dict]:
    """Return the same settings for each preset on a CPU."""
    return {"smoke": settings, "cpu": settings, "full": settings}


ARMS = (
    Arm("vit", CLASSIFIER, classifier()),
    Arm("without positions", CLASSIFIER, classifier(positions="none")),
    Arm("other writers", CLASSIFIER, classifier(other_writers=True), only_on="digits"),
    Arm("order", ORDER, order()),
    Arm("order without positions", ORDER, order(positions="none")),
    Arm("baselines", BASELINES, every_preset()),
    Arm("baselines, other writers", BASELINES, every_preset(other_writers=True), only_on="digits"),
    Arm("exact", f"{EXPERIMENT}.exact:check_identities", every_preset()),
    # Not in the cpu preset, which has two minutes.
    Arm("registers", CLASSIFIER, {name: classifier(registers=4)[name] for name in ("smoke", "full")}),
    Arm("few labels", FEW_LABELS, few_labels()),
    Arm("few labels, masked 75 %", FEW_LABELS, few_labels(mask_ratio=0.75)),
    Arm("few labels, masked 25 %", FEW_LABELS, few_labels(mask_ratio=0.25)),
    Arm("no teacher", FEW_LABELS, without("teacher_steps", distilled())),
    Arm("distilled", DISTILLED, distilled(unlabeled_images=False)),
    Arm("distilled, unlabeled images", DISTILLED, distilled(unlabeled_images=True)),
    Arm("large", f"{EXPERIMENT}.train:train_large", large()),
    Arm("baselines, large", BASELINES, {"gpu": {}}),
)
