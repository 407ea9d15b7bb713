"""The arms of the part `autograd`."""

from shared.course.lesson import Arm

PACKAGE = "lessons.lesson_00_foundations.autograd.experiment"
PART = "autograd"
PRESETS = ("smoke", "cpu", "full")

REFERENCE_AND_PYTORCH = "pure Python and PyTorch"
COST = "gradient cost"
DESCENT, MOMENTUM, ADAM = "gradient descent", "gradient descent with momentum", "Adam"


def _optimizer_presets(optimizer: str, learning_rates: list[float]) -> dict[str, dict]:
    settings = {"optimizer": optimizer, "learning_rates": learning_rates}
    return {preset: settings | {"steps": 20 if preset == "smoke" else 200} for preset in PRESETS}


def _arm(name: str, function: str, presets: dict[str, dict]) -> Arm:
    return Arm(name, f"{PACKAGE}.{function}", presets, part=PART)


ARMS = (
    _arm("gradients", "evaluate:check_gradients", {preset: {} for preset in PRESETS}),
    _arm(COST, "evaluate:measure_gradient_cost", {preset: {"widths": [4, 16, 64, 256]} for preset in PRESETS}),
    _arm(
        REFERENCE_AND_PYTORCH,
        "train:train_reference_and_pytorch",
        {"smoke": {"steps": 20}, "cpu": {"steps": 600}, "full": {"steps": 1500}},
    ),
    _arm(DESCENT, "train:train_with_optimizer", _optimizer_presets("sgd", [0.1, 0.3, 1.0, 3.0])),
    _arm(MOMENTUM, "train:train_with_optimizer", _optimizer_presets("momentum", [0.03, 0.1, 0.3, 1.0])),
    _arm(ADAM, "train:train_with_optimizer", _optimizer_presets("adam", [0.003, 0.01, 0.03, 0.1])),
)
