"""The claims of the part `autograd`."""

from lessons.lesson_00_foundations.autograd.experiment.arms import ADAM, COST, DESCENT, MOMENTUM, REFERENCE_AND_PYTORCH
from shared.course.claims import number, ratio
from shared.course.lesson import Claim

CLAIMS = (
    Claim(
        "gradients-equal-finite-differences",
        "exact",
        "Every operator's gradient equals the one from finite differences (largest difference).",
        "shared/stdlib",
        ("gradients",),
        number("gradients", "finite_difference_error"),
        1e-6,
        "error",
        at_least=False,
    ),
    Claim(
        "gradients-equal-pytorch",
        "exact",
        "… and PyTorch's (largest difference, float64).",
        "shared/stdlib",
        ("gradients",),
        number("gradients", "torch_difference"),
        1e-9,
        "error",
        at_least=False,
    ),
    Claim(
        "reference-trains-like-pytorch",
        "exact",
        "Trained from the same weights on the same batches, pure Python and PyTorch have the same loss for 100 steps "
        "(largest difference).",
        "shared/stdlib",
        (REFERENCE_AND_PYTORCH,),
        number(REFERENCE_AND_PYTORCH, "loss_difference"),
        1e-6,
        "error",
        at_least=False,
    ),
    Claim(
        "mlp-classifies-digits",
        "learns",
        "Two layers in pure Python read held-out digits better than the nearest class mean does.",
        "Rumelhart, Hinton & Williams, 1986",
        (REFERENCE_AND_PYTORCH,),
        number(REFERENCE_AND_PYTORCH, "accuracy"),
        0.95,
        baseline=number(REFERENCE_AND_PYTORCH, "nearest_mean"),
        baseline_name="nearest class mean",
    ),
    Claim(
        "gradient-cost-is-constant",
        "paper",
        "The gradient by all weights costs a few forward passes, however many weights there are (the most, from 310 "
        "weights to 19,210).",
        "Baur & Strassen, 1983",
        (COST,),
        number(COST, "largest_cost"),
        6.0,
        "number",
        at_least=False,
    ),
    Claim(
        "momentum-lowers-loss",
        "paper",
        "After equal steps, each at the best of its learning rates, momentum's training loss is lower than plain "
        "descent's (ratio).",
        "Polyak, 1964",
        (MOMENTUM, DESCENT),
        ratio(MOMENTUM, DESCENT, "training_loss"),
        0.95,
        "number",
        at_least=False,
    ),
    Claim(
        "adam-lowers-loss",
        "paper",
        "… and so is Adam's (ratio).",
        "arXiv:1412.6980, section 6",
        (ADAM, DESCENT),
        ratio(ADAM, DESCENT, "training_loss"),
        0.8,
        "number",
        at_least=False,
    ),
)
