"""Lesson 1's experiment: what `make lesson-1` trains, and the claims that it measures.

Each arm is trained in a process of its own; each claim reads what the arms have measured on held-out images.
"""

from lessons.lesson_01_vit.experiment.figures import CAPTIONS, draw
from shared.course.claims import difference, number
from shared.course.lesson import Arm, Claim, Lesson

ROOMS = "lessons.lesson_01_vit.experiment"
LABELS_PER_CLASS = 5
LABELS_WITH_TEACHER = 10

# Steps of training at each preset.
CLASSIFIER = {"smoke": {"steps": 12}, "cpu": {"steps": 1400}, "full": {"steps": 1400}}
ORDER = {"smoke": {"steps": 12}, "cpu": {"steps": 250}, "full": {"steps": 250}}
FEW = {"smoke": {"steps": 6, "per_class": LABELS_PER_CLASS}, "full": {"steps": 400, "per_class": LABELS_PER_CLASS}}
PRETRAINING = {"smoke": {"pretraining_steps": 6}, "full": {"pretraining_steps": 2000}}
DISTILLATION = {
    "smoke": {"steps": 6, "per_class": LABELS_WITH_TEACHER},
    "full": {"steps": 600, "per_class": LABELS_WITH_TEACHER},
}
TEACHER = {"smoke": {"teacher_steps": 6}, "full": {"teacher_steps": 300}}
ALWAYS: dict[str, dict] = {"smoke": {}, "cpu": {}, "full": {}}
LARGE_VIT = {"patch_size": 4, "width": 384, "depth": 12, "heads": 6, "mlp_dim": 1536, "positions": "rotary", "registers": 4, "pooling": "mean", "drop_path": 0.1}  # fmt: skip


def _with(presets: dict[str, dict], **settings) -> dict[str, dict]:
    """The same presets, each with further settings."""
    return {name: given | settings for name, given in presets.items()}


def _and(presets: dict[str, dict], more: dict[str, dict]) -> dict[str, dict]:
    """Two sets of settings for the same presets as one."""
    return {name: given | more[name] for name, given in presets.items()}


def _not_cpu(presets: dict[str, dict], **settings) -> dict[str, dict]:
    """The same, but for the `cpu` preset, which has two minutes."""
    return {name: given for name, given in _with(presets, **settings).items() if name != "cpu"}


ARMS = (
    Arm("vit", f"{ROOMS}.classifier:train_classifier", CLASSIFIER),
    Arm("without positions", f"{ROOMS}.classifier:train_classifier", _with(CLASSIFIER, positions="none")),
    Arm(
        "other writers", f"{ROOMS}.classifier:train_classifier", _with(CLASSIFIER, other_writers=True), only_on="digits"
    ),
    Arm("order", f"{ROOMS}.order:train_order_detector", ORDER),
    Arm("order without positions", f"{ROOMS}.order:train_order_detector", _with(ORDER, positions="none")),
    Arm("baselines", f"{ROOMS}.baselines:measure_baselines", ALWAYS),
    Arm(
        "baselines, other writers", f"{ROOMS}.baselines:measure_baselines", _with(ALWAYS, other_writers=True),
        only_on="digits",
    ),
    Arm("exact", f"{ROOMS}.exact:check_mechanism", ALWAYS),
    Arm("registers", f"{ROOMS}.classifier:train_classifier", _not_cpu(CLASSIFIER, registers=4)),
    Arm("few labels", f"{ROOMS}.few_labels:train_from_few_labels", FEW),
    Arm(
        "few labels, masked 75 %", f"{ROOMS}.few_labels:train_from_few_labels",
        _with(_and(FEW, PRETRAINING), mask_ratio=0.75),
    ),
    Arm(
        "few labels, masked 25 %", f"{ROOMS}.few_labels:train_from_few_labels",
        _with(_and(FEW, PRETRAINING), mask_ratio=0.25),
    ),
    Arm("taught by labels", f"{ROOMS}.few_labels:train_from_few_labels", DISTILLATION),
    Arm(
        "taught by a CNN",
        f"{ROOMS}.few_labels:train_distilled",
        _with(_and(DISTILLATION, TEACHER), new_images=False),
    ),
    Arm(
        "taught by a CNN, new images",
        f"{ROOMS}.few_labels:train_distilled",
        _with(_and(DISTILLATION, TEACHER), new_images=True),
    ),
    Arm(
        "large", f"{ROOMS}.large:train_large",
        {
            "smoke": {"steps": 6, "batch_size": 32, "learning_rate": 2e-3, "precision": "float32", "compiled": False, "positions": "rotary", "registers": 4, "pooling": "mean"},
            "gpu": {"steps": 20_000, "batch_size": 1024, "learning_rate": 2e-3, "precision": "bfloat16", "compiled": True, **LARGE_VIT},
        },
    ),
    Arm("baselines, large", f"{ROOMS}.baselines:measure_baselines", {"gpu": {}}),
)  # fmt: skip


CLAIMS = (
    Claim(
        "patches-are-a-convolution", "exact",
        "Cutting into patches and projecting each equals a convolution with stride = kernel = patch (largest difference).",
        "arXiv:2010.11929, section 3.1", ("exact",), number("exact", "convolution_difference"), 1e-5, "error", at_least=False,
    ),
    Claim(
        "reference-equals-model", "exact",
        "The pure-Python model and the PyTorch one give the same logits from the same weights (largest difference, float64).",
        "reference.py, model/", ("exact",), number("exact", "reference_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "reference-gradients-equal", "exact",
        "… and the same gradients of every weight (largest difference, float64).",
        "reference.py, model/", ("exact",), number("exact", "reference_gradient_difference"), 1e-9, "error", at_least=False,
    ),
    Claim(
        "order-is-invisible", "exact",
        "Without positions, shuffling the patches does not change the logits (largest difference; baseline: with positions).",
        "arXiv:2010.11929, appendix D.4", ("exact",), number("exact", "order_difference_without_positions"), 1e-4, "error",
        at_least=False, baseline=number("exact", "order_difference_with_positions"), baseline_name="with positions",
    ),
    Claim(
        "held-out-digits", "learns",
        "It reads held-out digits (a random fifth), better than the nearest training image does.",
        "arXiv:2010.11929", ("vit", "baselines"), number("vit", "accuracy"), 0.98,
        baseline=number("baselines", "nearest_neighbor"), baseline_name="nearest neighbor",
    ),
    Claim(
        "other-writers",
        "learns",
        "It reads the digits of people none of whose writing it has seen (the last fifth), which is harder.",
        "arXiv:2010.11929",
        ("other writers", "baselines, other writers"),
        number("other writers", "accuracy"),
        0.94,
        baseline=number("baselines, other writers", "softmax_regression"),
        baseline_name="softmax regression",
    ),
    Claim(
        "other-writers-and-the-neighbor",
        "learns",
        "There, the nearest neighbor is harder to beat (its accuracy taken from the model's).",
        "",
        ("other writers", "baselines, other writers"),
        lambda arms: arms["other writers"]["accuracy"] - arms["baselines, other writers"]["nearest_neighbor"],
        0.0,
        "points",
        presets=(),
    ),
    Claim(
        "positions-tell-order", "paper",
        "With positions it tells intact images from shuffled ones, held out; without, it can only guess.",
        "arXiv:2010.11929, appendix D.4", ("order", "order without positions"), number("order", "accuracy"), 0.98,
        baseline=number("order without positions", "accuracy"), baseline_name="without positions",
    ),
    Claim(
        "positions-help", "paper",
        "Positions raise the held-out accuracy on digits (with less without).",
        "arXiv:2010.11929, table 8", ("vit", "without positions"), difference("vit", "without positions"), 0.20, "points",
    ),
    Claim(
        "places-are-learned", "paper",
        "Position vectors of neighboring patches become more alike than those of others (cosine, difference of means).",
        "arXiv:2010.11929, figure 7", ("vit",), number("vit", "neighbor_likeness"), 0.05, "number",
    ),
    Claim(
        "masked-pretraining-helps", "paper",
        f"With {LABELS_PER_CLASS} labels a class, fine-tuning a masked autoencoder beats training from scratch (with less without).",
        "arXiv:2111.06377, section 4", ("few labels, masked 75 %", "few labels"),
        difference("few labels, masked 75 %", "few labels"), 0.02, "points",
    ),
    Claim(
        "mask-most", "paper",
        "Hiding 75 % of the patches teaches no less than hiding 25 %, at a third of the encoder's work (accuracy after fine-tuning, difference).",
        "arXiv:2111.06377, figure 5", ("few labels, masked 75 %", "few labels, masked 25 %"),
        difference("few labels, masked 75 %", "few labels, masked 25 %"), -0.02, "points",
    ),
    Claim(
        "teacher-helps",
        "paper",
        f"With {LABELS_WITH_TEACHER} labels a class and equal steps, a convolutional teacher that also decides on unlabeled images "
        "beats labels alone (difference).",
        "arXiv:2012.12877, section 4",
        ("taught by a CNN, new images", "taught by labels"),
        difference("taught by a CNN, new images", "taught by labels"),
        0.0,
        "points",
    ),
    Claim(
        "teacher-on-labeled-images",
        "paper",
        "The same when it decides on the labeled images only, as in the paper (difference; see “How to read this”).",
        "arXiv:2012.12877, table 3",
        ("taught by a CNN", "taught by labels"),
        difference("taught by a CNN", "taught by labels"),
        0.0,
        "points",
        presets=(),
    ),
    Claim(
        "teacher-agrees",
        "learns",
        "There the teacher can say nothing new: its decisions on jittered training images are the labels (share).",
        "arXiv:2012.12877, section 4",
        ("taught by a CNN",),
        number("taught by a CNN", "teacher_agreement"),
        0.99,
        presets=("full",),
    ),
    Claim(
        "registers-cost-nothing", "learns",
        "Four registers cost little held-out accuracy (with less without).",
        "arXiv:2309.16588, section 3.2", ("registers", "vit"), difference("registers", "vit"), -0.03, "points",
    ),
    Claim(
        "registers-calm-outliers", "paper",
        "Without registers, some patch tokens grow three times as long as the median (their share).",
        "arXiv:2309.16588, section 2.2", ("vit", "registers"), number("vit", "outlier_share"), 0.01,
        presets=("full",), expected="not at this scale",
        reason="the paper finds such tokens only in its larger models (ViT-L and up), and only after a third of a long "
        "training; ours, three blocks deep, has nothing to store and no background to store it in, so registers have "
        "nothing to repair here. What they cost is measured above.",
    ),
    Claim(
        "cifar10-from-scratch", "learns",
        "A Vision Transformer without a convolution or other data learns CIFAR-10.",
        "arXiv:2010.11929", ("large", "baselines, large"), number("large", "accuracy"), 0.94,
        baseline=number("baselines, large", "softmax_regression"), baseline_name="softmax regression", presets=("gpu",),
    ),
)  # fmt: skip

LESSON = Lesson(
    number=1,
    arms=ARMS,
    claims=CLAIMS,
    headline="held-out-digits",
    headline_caption="held-out handwritten digits read",
    figures=draw,
    captions=CAPTIONS,
    data_sets={"smoke": "digits", "cpu": "digits", "full": "digits", "gpu": "cifar10"},
    other_data_sets=("fashion_mnist", "folder:PATH"),
)
