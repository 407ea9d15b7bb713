"""The claims of lesson 2; each reads what the arms measured on unseen color–shape combinations."""

from lessons.lesson_02_clip.experiment.arms import LARGEST, SMALLEST
from lessons.lesson_02_clip.experiment.captioning_claims import LOCATIONS
from shared.course.claims import Measure, difference, number
from shared.course.lesson import Arms, Claim, question

# The losses are compared by zero-shot accuracy on unseen combinations.
SCORE = "zero_shot"


def sigmoid_lead(arms: Arms, contrast: int) -> float:
    """Return the zero-shot accuracy of the sigmoid loss minus that of InfoNCE, at a number of contrasted pairs."""
    return difference(f"sigmoid, {contrast} pairs", f"info-nce, {contrast} pairs", SCORE)(arms)


def ensemble_gain(prompt: str) -> Measure:
    """Return a measure of the accuracy of the prompt ensemble minus that of another kind of prompt."""
    return lambda arms: arms["clip"]["ensemble"] - arms["clip"][prompt]


def exact(name: str, sentence: str, source: str, measure: str) -> Claim:
    """Return the claim of an identity in float64."""
    return Claim(name, "exact", sentence, source, ("exact",), number("exact", measure), 1e-9, "error", at_least=False)


EXACT = (
    exact(
        "gradients-by-hand",
        "Manually derived gradients of both losses, against the engine's and PyTorch's (largest difference, float64).",
        "arXiv:2103.00020, figure 3; arXiv:2303.15343, algorithm 1",
        "manual_gradient_difference",
    ),
    exact(
        "reference-equals-model",
        "Vectors of the pure-Python and the PyTorch encoders with the same weights (largest difference, float64).",
        "reference.py, model/",
        "reference_difference",
    ),
    exact(
        "reference-gradients-equal",
        "Gradients of every weight of the pure-Python and the PyTorch model (largest difference, float64).",
        "reference.py, model/",
        "reference_gradient_difference",
    ),
    exact(
        "two-processes-equal-one",
        "Losses and gradients of gathered InfoNCE and of the ring sigmoid loss over two processes, against one process "
        "(largest difference, float64).",
        "arXiv:2303.15343, section 3.3",
        "processes_difference",
    ),
    exact(
        "chunks-equal-the-batch",
        "Gradients of a batch of 64 pairs encoded in chunks of 8, against the whole batch at once (largest difference, "
        "float64).",
        "arXiv:2101.06983, section 3.3",
        "chunk_difference",
    ),
    Claim(
        "chunks-save-memory",
        "exact",
        "Bytes stored for the backward pass with chunks of 8, as a fraction of those of the whole batch (those of one "
        "chunk are added).",
        "arXiv:2101.06983, section 3.3",
        ("exact",),
        number("exact", "chunk_memory_fraction"),
        0.5,
        "percent",
        at_least=False,
    ),
)

ZERO_SHOT = question(
    "Does CLIP classify unseen combinations?",
    Claim(
        "zero-shot",
        "learns",
        "Zero-shot accuracy on single objects of unseen color–shape combinations, by the most similar of 64 captions.",
        "arXiv:2103.00020, section 3.1",
        ("clip", "baselines"),
        number("clip", "zero_shot"),
        0.85,
        baseline=number("baselines", "zero_shot"),
        baseline_name="two linear classifiers, trained with labels",
    ),
    Claim(
        "chance",
        "learns",
        "Chance level: accuracy of a random choice among the 64 captions.",
        "",
        ("baselines",),
        number("baselines", "chance"),
        0.05,
        at_least=False,
    ),
    Claim(
        "zero-shot-seen",
        "learns",
        "Zero-shot accuracy on single objects of seen combinations in new scenes, by the most similar of 64 captions.",
        "arXiv:2103.00020, section 3.1",
        ("clip",),
        number("clip", "zero_shot_seen"),
        0.9,
    ),
    Claim(
        "zero-shot-several",
        "learns",
        "Zero-shot accuracy on scenes of two or three objects after training on one: the most similar of 64 captions "
        "describes one of them.",
        "",
        ("clip",),
        number("clip", "zero_shot_several"),
        0.3,
        baseline=number("clip", "zero_shot_several_chance"),
        baseline_name="chance",
        presets=(),
    ),
)

RETRIEVAL = question(
    "Does it retrieve images and captions?",
    Claim(
        "image-to-text",
        "learns",
        "Recall at 1 of the full caption of a held-out image, among all distinct captions of 512 such images.",
        "arXiv:2103.00020, table 13",
        ("clip",),
        number("clip", "image_to_text"),
        0.08,
        paper_value="58.4 % (MSCOCO, CLIP ViT-L/14@336)",
        baseline=number("clip", "chance"),
        baseline_name="chance",
    ),
    Claim(
        "text-to-image",
        "learns",
        "Recall at 1 of the image of a full caption, among one held-out image per distinct caption.",
        "arXiv:2103.00020, table 13",
        ("clip",),
        number("clip", "text_to_image"),
        0.08,
        paper_value="37.8 % (MSCOCO, CLIP ViT-L/14@336)",
        baseline=number("clip", "chance"),
        baseline_name="chance",
    ),
)

REAL_IMAGES = question(
    "Does it work on real images?",
    Claim(
        "fashion-mnist-held-out",
        "learns",
        "Zero-shot accuracy on two Fashion-MNIST classes held out of training (pullover, sneaker), from descriptions "
        "of all ten.",
        "arXiv:2103.00020, section 3.1",
        ("fashion-mnist",),
        number("fashion-mnist", "zero_shot_held_out"),
        0.2,
        baseline=number("fashion-mnist", "chance"),
        baseline_name="chance",
        presets=(),
    ),
    Claim(
        "fashion-mnist-linear-probe",
        "learns",
        "Accuracy of a linear probe of the frozen image encoder on all ten Fashion-MNIST classes.",
        "arXiv:2103.00020, section 3.2",
        ("fashion-mnist",),
        number("fashion-mnist", "linear_probe"),
        0.7,
        baseline=number("fashion-mnist", "linear_probe_of_pixels"),
        baseline_name="probe of pixels",
        presets=(),
    ),
    Claim(
        "photographs",
        "learns",
        "Recall at 5 of a held-out photograph's caption among all held-out ones, trained from scratch on a few "
        "thousand photographs.",
        "arXiv:2103.00020, table 13",
        ("photographs",),
        number("photographs", "image_to_text_at_5"),
        0.05,
        baseline=number("photographs", "chance"),
        baseline_name="chance",
        presets=(),
    ),
)

LOSSES = question(
    "How many pairs must be contrasted?",
    Claim(
        "more-negatives-help",
        "paper",
        f"Zero-shot accuracy of InfoNCE on unseen combinations at equal steps, {LARGEST} contrasted pairs − "
        f"{SMALLEST}.",
        "arXiv:2303.15343, figure 2",
        (f"info-nce, {LARGEST} pairs", f"info-nce, {SMALLEST} pairs"),
        difference(f"info-nce, {LARGEST} pairs", f"info-nce, {SMALLEST} pairs", SCORE),
        0.1,
        "points",
    ),
    Claim(
        "sigmoid-leads-with-few-pairs",
        "paper",
        f"Lead of the sigmoid loss over InfoNCE in zero-shot accuracy, at {SMALLEST} contrasted pairs − at {LARGEST}.",
        "arXiv:2303.15343, figure 2",
        tuple(f"{loss}, {size} pairs" for loss in ("info-nce", "sigmoid") for size in (SMALLEST, LARGEST)),
        lambda arms: sigmoid_lead(arms, SMALLEST) - sigmoid_lead(arms, LARGEST),
        0.1,
        "points",
    ),
    Claim(
        "sigmoid-lead-at-the-smallest",
        "paper",
        f"Zero-shot accuracy on unseen combinations at {SMALLEST} contrasted pairs, sigmoid loss − InfoNCE.",
        "arXiv:2303.15343, figure 2",
        (f"info-nce, {SMALLEST} pairs", f"sigmoid, {SMALLEST} pairs"),
        lambda arms: sigmoid_lead(arms, SMALLEST),
        0.0,
        "points",
        presets=(),
    ),
)

PROMPTS = question(
    "Do several prompts help?",
    Claim(
        "ensembles-help",
        "paper",
        "Zero-shot accuracy on unseen combinations, ensemble of 72 detailed prompts − mean over the same prompts "
        "one by one.",
        "arXiv:2103.00020, section 3.1.4",
        ("clip",),
        ensemble_gain("one_detailed_prompt"),
        0.02,
        "points",
        paper_value="+3.5 points (ImageNet, 80 prompts)",
    ),
    Claim(
        "ensemble-and-short-prompt",
        "paper",
        "Zero-shot accuracy on unseen combinations, ensemble of 72 detailed prompts − one short prompt such as "
        "“a purple triangle”.",
        "arXiv:2103.00020, section 3.1.4",
        ("clip",),
        ensemble_gain("zero_shot"),
        0.0,
        "points",
        presets=(),
    ),
)

GAP_AND_TEMPERATURE = question(
    "Are image and text vectors aligned, and does the temperature matter?",
    Claim(
        "modality-gap",
        "paper",
        "Modality gap after training: distance between the mean image vector and the mean text vector.",
        "arXiv:2203.02053, section 4.2, figure 3",
        ("clip",),
        number("clip", "gap"),
        0.5,
        "number",
        expected="not reproduced",
        paper_value="0.82 (CLIP on MSCOCO captions)",
        hypothesis="the gap exists before training (the next row), and training closes most of it. Toy captions "
        "describe everything in an image, so the vectors of an image and its caption can become equal. A photograph's "
        "caption describes little of it. A test: leave attributes out of the captions, and measure the gap again.",
    ),
    Claim(
        "modality-gap-untrained",
        "paper",
        "Modality gap before training: distance between the mean image vector and the mean text vector.",
        "arXiv:2203.02053, section 2.3",
        ("clip",),
        number("clip", "gap_before"),
        0.5,
        "number",
    ),
    Claim(
        "temperature-is-learned",
        "paper",
        "Zero-shot accuracy on unseen combinations, learned temperature − temperature fixed at 1.",
        "arXiv:2103.00020, section 2.3",
        ("info-nce, 64 pairs", "temperature 1"),
        difference("info-nce, 64 pairs", "temperature 1", "zero_shot"),
        0.0,
        "points",
    ),
)

CLAIMS = (*EXACT, *ZERO_SHOT, *RETRIEVAL, *LOSSES, *PROMPTS, *LOCATIONS, *GAP_AND_TEMPERATURE)
