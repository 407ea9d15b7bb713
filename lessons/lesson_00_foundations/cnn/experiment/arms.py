"""The arms of the part `cnn`."""

from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_00_foundations.cnn.experiment"
PART = "cnn"
LONG = 4
"""Factor by which the long training of the MLP exceeds the usual number of steps."""


def _presets(smoke_steps: int, steps: int, **settings) -> dict[str, dict]:
    """Return the same settings for every CPU preset, with fewer steps in `smoke`."""
    return {
        preset: {"steps": smoke_steps if preset == "smoke" else steps, **settings}
        for preset in ("smoke", "cpu", "full")
    }


def _shifted(name: str, model: str, positions: str = "everywhere", factor: int = 1) -> Arm:
    presets = _presets(6 * factor, 600 * factor, model=model, positions=positions)
    return Arm(name, f"{PACKAGE}.train:train_on_shifted_digits", presets, part=PART)


def _deep(name: str, blocks: int, residual: bool) -> Arm:
    presets = _presets(3, 300, blocks=blocks, residual=residual)
    return Arm(name, f"{PACKAGE}.train:train_deep_network", presets, part=PART)


ARMS = (
    _shifted("shifted, CNN", "cnn"),
    _shifted("shifted, MLP", "mlp"),
    _shifted("shifted, MLP, long", "mlp", factor=LONG),
    _shifted("shifted, softmax regression", "softmax regression"),
    _shifted("left half, CNN", "cnn", "left"),
    _shifted("left half, MLP", "mlp", "left"),
    _deep("deep, residual", blocks=20, residual=True),
    _deep("deep, plain", blocks=20, residual=False),
    _deep("shallow, residual", blocks=4, residual=True),
    _deep("shallow, plain", blocks=4, residual=False),
    Arm("convolution, exact", f"{PACKAGE}.exact:check_convolution", {"smoke": {}, "cpu": {}, "full": {}}, part=PART),
    Arm(
        "photographs, ResNet-20",
        f"{PACKAGE}.train:train_on_photographs",
        {
            "smoke": {"steps": 2, "depth": 8, "batch_size": 16},
            "gpu": {"steps": 40_000, "depth": 20, "batch_size": 128},
        },
        part=PART,
    ),
)
