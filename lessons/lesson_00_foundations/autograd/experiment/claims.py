"""What the part `autograd` trains and claims."""

from shared.course.claims import number, ratio
from shared.course.lesson import Arm, Claim

ROOM = "lessons.lesson_00_foundations.autograd.experiment.arms"
PART = "autograd"
ALWAYS: dict[str, dict] = {"smoke": {}, "cpu": {}, "full": {}}


def _race(optimizer: str, rates: list[float]) -> dict[str, dict]:
    settings = {"optimizer": optimizer, "rates": rates}
    return {"smoke": settings | {"steps": 20}, "cpu": settings | {"steps": 200}, "full": settings | {"steps": 200}}


ARMS = (
    Arm("gradients", f"{ROOM}:check_gradients", ALWAYS, part=PART),
    Arm("cost of a gradient", f"{ROOM}:measure_cost", {name: {"widths": [4, 16, 64, 256]} for name in ALWAYS}, part=PART),
    Arm(
        "in both worlds", f"{ROOM}:train_in_both_worlds",
        {"smoke": {"steps": 20}, "cpu": {"steps": 600}, "full": {"steps": 1500}}, part=PART,
    ),
    Arm("descent", f"{ROOM}:train_with", _race("sgd", [0.1, 0.3, 1.0, 3.0]), part=PART),
    Arm("descent with momentum", f"{ROOM}:train_with", _race("momentum", [0.03, 0.1, 0.3, 1.0]), part=PART),
    Arm("Adam", f"{ROOM}:train_with", _race("adam", [0.003, 0.01, 0.03, 0.1]), part=PART),
)  # fmt: skip

CLAIMS = (
    Claim(
        "gradients-by-pushing", "exact",
        "Every operator's gradient is what pushing each number a little up and down gives (largest difference).",
        "shared/stdlib", ("gradients",), number("gradients", "finite_difference_error"), 1e-6, "error",
        at_least=False,
    ),
    Claim(
        "gradients-are-pytorchs", "exact", "… and what PyTorch gives (largest difference, float64).",
        "shared/stdlib", ("gradients",), number("gradients", "torch_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "two-worlds-one-training", "exact",
        "Trained from the same weights on the same batches, pure Python and PyTorch have the same loss for 100 steps "
        "(largest difference).",
        "shared/stdlib", ("in both worlds",), number("in both worlds", "loss_difference"), 1e-6, "error",
        at_least=False,
    ),
    Claim(
        "a-network-reads-digits", "learns",
        "Two layers in pure Python read held-out digits better than the nearest class mean does.",
        "Rumelhart, Hinton & Williams, 1986", ("in both worlds",), number("in both worlds", "accuracy"), 0.95,
        baseline=number("in both worlds", "nearest_mean"), baseline_name="nearest class mean",
    ),
    Claim(
        "a-gradient-is-cheap", "paper",
        "The gradient by all weights costs a few forward passes, however many weights there are (the most, from 310 weights to 19,210).",
        "Baur & Strassen, 1983", ("cost of a gradient",), number("cost of a gradient", "largest_cost"), 6.0,
        "number", at_least=False,
    ),
    Claim(
        "momentum-descends-faster", "paper",
        "After equal steps, each at the best of its learning rates, momentum's training loss is lower than plain descent's (ratio).",
        "Polyak, 1964", ("descent with momentum", "descent"),
        ratio("descent with momentum", "descent", "training_loss"), 0.95, "number", at_least=False,
    ),
    Claim(
        "adam-descends-faster", "paper", "… and so is Adam's (ratio).",
        "arXiv:1412.6980, section 6", ("Adam", "descent"), ratio("Adam", "descent", "training_loss"), 0.8, "number",
        at_least=False,
    ),
)  # fmt: skip
