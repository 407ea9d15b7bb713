"""Which arms run in which preset, for how long."""

from shared.course.lesson import Arm

ROOM = "lessons.lesson_02_clip.arms"
PAIRS = f"{ROOM}.contrast:train_pairs"

SMALLEST = 4
# How many pairs are compared with one another; the smallest and the largest also in two minutes.
CONTRASTS = (2, SMALLEST, 8, 16, 32, 64)
TINY = {"steps": 4, "scenes": 200}
HEADLINE = {"smoke": TINY, "cpu": {"steps": 900}, "full": {"steps": 900}}
# Half as long: what is compared is one with another.
SWEEP = {"steps": 400}


def swept(loss: str, contrast: int) -> Arm:
    """One loss at one number of contrasted pairs; pairs, steps and work are the same for all."""
    settings = {"loss": loss, "contrast": contrast}
    presets = {"full": SWEEP | settings}
    if contrast in (SMALLEST, 64):
        presets |= {"smoke": TINY | settings, "cpu": SWEEP | settings}
    return Arm(f"{loss}, {contrast} pairs", PAIRS, presets)


ARMS = (
    Arm("clip", PAIRS, HEADLINE),
    *(swept(loss, contrast) for contrast in CONTRASTS for loss in ("info-nce", "sigmoid")),
    Arm("temperature 1", PAIRS, {"smoke": TINY | {"temperature": 1.0}, "full": SWEEP | {"temperature": 1.0}}),
    Arm("temperature 0.07", PAIRS, {"full": SWEEP | {"temperature": 0.07}}),
    Arm("several things", PAIRS, {"smoke": TINY | {"things": [1, 3]}, "full": {"steps": 1800, "things": [1, 3]}}),
    Arm(
        "baselines", f"{ROOM}.baselines:measure_baselines",
        {"smoke": {"scenes": 200, "epochs": 1}, "cpu": {"scenes": 8000, "epochs": 8}, "full": {"scenes": 16000, "epochs": 20}},
    ),
    Arm("exact", f"{ROOM}.exact:check_mechanism", {"smoke": {}, "cpu": {}, "full": {}}),
)  # fmt: skip
