"""The claims of the part `autograd`."""

from lessons.lesson_00_foundations.autograd.experiment.arms import ADAM, COST, DESCENT, MOMENTUM, REFERENCE_AND_PYTORCH
from shared.course.claims import number, ratio
from shared.course.lesson import Claim, question

CLAIMS = (
    Claim(
        "gradients-equal-finite-differences",
        "exact",
        "Gradients of every operator against finite differences (largest difference, float64).",
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
        "Gradients of every operator against PyTorch's (largest difference, float64).",
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
        "Training loss of pure Python and PyTorch from the same weights over 100 steps (largest difference).",
        "shared/stdlib",
        (REFERENCE_AND_PYTORCH,),
        number(REFERENCE_AND_PYTORCH, "loss_difference"),
        1e-6,
        "error",
        at_least=False,
    ),
    *question(
        "Does the engine train a network?",
        Claim(
            "mlp-classifies-digits",
            "learns",
            "Accuracy of a two-layer network, trained by the pure-Python engine, on held-out digits.",
            "Rumelhart, Hinton & Williams, 1986",
            (REFERENCE_AND_PYTORCH,),
            number(REFERENCE_AND_PYTORCH, "accuracy"),
            0.95,
            baseline=number(REFERENCE_AND_PYTORCH, "nearest_mean"),
            baseline_name="nearest class mean",
        ),
    ),
    *question(
        "What does a gradient cost, and which optimizer is faster?",
        Claim(
            "gradient-cost-is-constant",
            "paper",
            "Cost of the gradient with respect to all weights, in forward passes (largest of four networks, 310 to "
            "19,210 weights).",
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
            "Ratio of training losses after equal steps, momentum / gradient descent, each at its best of four "
            "learning rates.",
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
            "Ratio of training losses after equal steps, Adam / gradient descent, each at its best of four learning "
            "rates.",
            "arXiv:1412.6980, section 6",
            (ADAM, DESCENT),
            ratio(ADAM, DESCENT, "training_loss"),
            0.8,
            "number",
            at_least=False,
        ),
    ),
)
