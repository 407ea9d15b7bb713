"""The arms of the CNN part, and what it claims of them."""

from shared.course.claims import difference, number
from shared.course.lesson import Arm, Claim

ROOMS = "lessons.lesson_00_foundations.cnn.experiment"
SHIFTED = f"{ROOMS}.arms:train_shifted"
DEEP = f"{ROOMS}.arms:train_deep"
MANY = 4
"""How many times as long the MLP is trained that gets more than its share."""


def _steps(smoke: int, usual: int, **settings) -> dict[str, dict]:
    """The same settings in every preset on a CPU, with fewer steps in the smallest."""
    return {preset: {"steps": smoke if preset == "smoke" else usual, **settings} for preset in ("smoke", "cpu", "full")}


ARMS = (
    Arm("shifted, CNN", SHIFTED, _steps(6, 600, model="cnn", places="everywhere"), part="cnn"),
    Arm("shifted, MLP", SHIFTED, _steps(6, 600, model="mlp", places="everywhere"), part="cnn"),
    Arm("shifted, MLP, long", SHIFTED, _steps(6 * MANY, 600 * MANY, model="mlp", places="everywhere"), part="cnn"),
    Arm("shifted, softmax regression", SHIFTED, _steps(6, 600, model="softmax regression", places="everywhere"), part="cnn"),
    Arm("left half, CNN", SHIFTED, _steps(6, 600, model="cnn", places="left"), part="cnn"),
    Arm("left half, MLP", SHIFTED, _steps(6, 600, model="mlp", places="left"), part="cnn"),
    Arm("deep, residual", DEEP, _steps(3, 300, blocks=20, residual=True), part="cnn"),
    Arm("deep, plain", DEEP, _steps(3, 300, blocks=20, residual=False), part="cnn"),
    Arm("shallow, residual", DEEP, _steps(3, 300, blocks=4, residual=True), part="cnn"),
    Arm("shallow, plain", DEEP, _steps(3, 300, blocks=4, residual=False), part="cnn"),
    Arm("convolution, exact", f"{ROOMS}.exact:check_convolution", {"smoke": {}, "cpu": {}, "full": {}}, part="cnn"),
    Arm(
        "photographs, ResNet-20", f"{ROOMS}.arms:train_photographs",
        {"smoke": {"steps": 2, "depth": 8, "batch_size": 16}, "gpu": {"steps": 40_000, "depth": 20, "batch_size": 128}},
        part="cnn",
    ),
)  # fmt: skip


CLAIMS = (
    Claim(
        "cnn-direct-is-conv2d", "exact",
        "A convolution by its definition, window after window, is PyTorch's conv2d: values and gradients, at several strides and paddings "
        "(largest difference, float64).",
        "cnn/convolution.py", ("convolution, exact",), number("convolution, exact", "direct_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "cnn-im2col-is-conv2d", "exact",
        "… so it is as one matrix product (im2col) …",
        "cnn/convolution.py", ("convolution, exact",), number("convolution, exact", "im2col_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "cnn-reference-is-conv2d", "exact",
        "… and in pure Python, with the gradients written out by hand.",
        "cnn/reference.py", ("convolution, exact",), number("convolution, exact", "reference_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "cnn-reference-network", "exact",
        "The pure-Python residual network and the PyTorch one have the same gradients of every weight (largest difference, float64).",
        "cnn/reference.py, cnn/model.py", ("convolution, exact",),
        lambda arms: max(arms["convolution, exact"][name] for name in ("network_difference", "network_gradient_difference")),
        1e-9, "error", at_least=False,
    ),
    Claim(
        "cnn-equivariance", "exact",
        "Shifting a digit and then convolving is convolving and then shifting (largest difference, float64).",
        "LeCun et al. 1998, section II.A", ("convolution, exact",), number("convolution, exact", "equivariance_difference"), 1e-12, "error",
        at_least=False,
    ),
    Claim(
        "cnn-shifted-digits", "learns",
        "The CNN reads held-out digits wherever they lie on the canvas.",
        "LeCun et al. 1998", ("shifted, CNN", "shifted, softmax regression"), number("shifted, CNN", "accuracy"), 0.96,
        baseline=number("shifted, softmax regression", "accuracy"), baseline_name="softmax regression",
    ),
    Claim(
        "cnn-beats-mlp", "paper",
        "It beats an MLP of equal size, trained on the same images for the same steps (with less without convolution).",
        "LeCun et al. 1998, section II.A", ("shifted, CNN", "shifted, MLP"), difference("shifted, CNN", "shifted, MLP"), 0.08, "points",
    ),
    Claim(
        "cnn-beats-long-mlp", "paper",
        f"… and still when the MLP is trained {MANY} times as long.",
        "LeCun et al. 1998, section II.A", ("shifted, CNN", "shifted, MLP, long"), difference("shifted, CNN", "shifted, MLP, long"), 0.02, "points",
    ),
    Claim(
        "cnn-new-places", "paper",
        "Trained in the left half of the places only, the CNN reads digits in the right half, where it never saw one; the MLP can only guess.",
        "LeCun et al. 1998, section II.A", ("left half, CNN", "left half, MLP"), number("left half, CNN", "accuracy_right"), 0.95,
        baseline=number("left half, MLP", "accuracy_right"), baseline_name="MLP of equal size",
    ),
    Claim(
        "cnn-depth-hurts-plain", "paper",
        "Without shortcuts 42 layers end with a higher training loss than 10 after the same steps (difference, in nats).",
        "arXiv:1512.03385, figure 1", ("deep, plain", "shallow, plain"), difference("deep, plain", "shallow, plain", "training_loss"), 0.5, "number",
    ),
    Claim(
        "cnn-shortcuts-help", "paper",
        "With shortcuts, 42 layers of exactly as many parameters end with a lower training loss than without (difference, in nats).",
        "arXiv:1512.03385, figure 4", ("deep, plain", "deep, residual"), difference("deep, plain", "deep, residual", "training_loss"), 0.8, "number",
    ),
    Claim(
        "cnn-shortcuts-held-out", "paper",
        "… and read more held-out digits (with less without).",
        "arXiv:1512.03385, table 2", ("deep, residual", "deep, plain"), difference("deep, residual", "deep, plain"), 0.35, "points",
    ),
    Claim(
        "cnn-deep-residual-against-shallow", "paper",
        "With shortcuts the same depth does no harm: 42 layers end with no higher training loss than 10 (difference, in nats).",
        "arXiv:1512.03385, figure 4", ("deep, residual", "shallow, residual"),
        difference("deep, residual", "shallow, residual", "training_loss"), 0.1, "number", at_least=False,
    ),
    Claim(
        "cnn-cifar10", "learns",
        "The paper's ResNet-20 learns CIFAR-10 (the paper: 91.25 %, reported).",
        "arXiv:1512.03385, table 6", ("photographs, ResNet-20",), number("photographs, ResNet-20", "accuracy"), 0.9, presets=(),
    ),
)  # fmt: skip
