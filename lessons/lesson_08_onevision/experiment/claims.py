"""The claims of lesson 8; each reads measurements of arms.py."""

from statistics import fmean

from shared.course.claims import Measure, difference, number
from shared.course.lesson import Arms, Claim, question
from shared.course.splits import on_splits

PAPER = "arXiv:2408.03326"
TRANSFER = f"{PAPER}, abstract"
KINDS = {"image": "single images", "images": "several images", "video": "videos"}
MARGIN = -0.02
"""Within 2 points of the specialists, and of the stage before."""
JUDGED = ("cpu", "full", "gpu")
"""Presets that train long enough to be judged."""
WITH_SPECIALISTS = ("full", "gpu")
CARDS = "−1.3 to +8.3 points (0.5B, seven single-image benchmarks of its model cards)"


def mean_gap(arms: Arms) -> float:
    """Return the accuracy of the one model minus that of each specialist on its own type of input, mean over types."""
    return fmean(arms["onevision"][f"{kind}_all"] - arms[f"{kind} specialist"][f"{kind}_all"] for kind in KINDS)


def after_mix(arms: Arms) -> float:
    """Return the accuracy on single images after the last stage minus that before it."""
    return arms["onevision"]["image_all"] - arms["onevision"]["before_image_all"]


def transfer_gain(name: str) -> Measure:
    """Return a measure of the video accuracy of the model of single and several images minus the control's."""
    return difference("image + images", "image + one frame", name)


EXACT = (
    Claim(
        "pooling-is-linear",
        "exact",
        "Bilinear pooling of 27 × 27 to 14 × 14 features equals W G Wᵀ (largest difference).",
        f"{PAPER}, section 3.2",
        ("exact",),
        number("exact", "pooling_difference"),
        1e-12,
        "error",
        at_least=False,
    ),
    Claim(
        "counts-are-exact",
        "exact",
        "Planned images and videos whose counted tokens differ from their embeddings, of 60.",
        f"{PAPER}, section 3.2",
        ("exact",),
        number("exact", "count_mismatches"),
        0.0,
        "error",
        at_least=False,
    ),
    Claim(
        "budgets-hold",
        "exact",
        "Tokens by which any of 200 planned sequences of images and videos exceeds its context.",
        f"{PAPER}, section 3.2",
        ("exact",),
        number("exact", "over_budget"),
        0.0,
        "error",
        at_least=False,
    ),
    Claim(
        "rows-are-independent",
        "exact",
        "Rows of an image, several images and a video have equal logits alone and in one batch (largest difference).",
        "model/onevision.py",
        ("exact",),
        number("exact", "batch_difference"),
        1e-5,
        "error",
        at_least=False,
    ),
    Claim(
        "reference-equals-model",
        "exact",
        "The pure-Python OneVision and the PyTorch one give the same logits (largest difference; angles are float32).",
        "reference.py",
        ("exact",),
        number("exact", "reference_difference"),
        1e-5,
        "error",
        at_least=False,
    ),
    Claim(
        "encoder-is-frozen",
        "exact",
        "Training leaves the vision encoder unchanged (1 if its hash differs).",
        "experiment/train.py",
        ("onevision",),
        number("onevision", "frozen_changed"),
        0.0,
        "error",
        at_least=False,
    ),
)

LEARNS = question(
    "Does one model answer questions about all types of input?",
    Claim(
        "answers",
        "learns",
        "Accuracy of the one model on unseen combinations, mean over single images, several images and videos.",
        PAPER,
        ("onevision", "blind"),
        number("onevision", "mean"),
        0.8,
        baseline=number("blind", "mean"),
        baseline_name="blind",
        presets=JUDGED,
    ),
    *(
        Claim(
            f"answers-{kind}",
            "learns",
            f"Accuracy of the one model on questions about {name} with unseen combinations.",
            PAPER,
            ("onevision", "blind"),
            number("onevision", f"{kind}_all"),
            0.5,
            baseline=number("blind", f"{kind}_all"),
            baseline_name="blind",
            presets=(),
        )
        for kind, name in KINDS.items()
    ),
)

SPECIALISTS = question(
    "Does one model match three specialists?",
    Claim(
        "matches-specialists",
        "paper",
        "Accuracy of the one model − that of each specialist on its type, equal steps, mean over three types.",
        TRANSFER,
        ("onevision", *(f"{kind} specialist" for kind in KINDS)),
        mean_gap,
        MARGIN,
        "points",
        presets=WITH_SPECIALISTS,
    ),
    *(
        Claim(
            f"matches-{kind}-specialist",
            "paper",
            f"Accuracy on questions about {name}, the one model − the specialist, equal steps.",
            TRANSFER,
            ("onevision", f"{kind} specialist"),
            difference("onevision", f"{kind} specialist", f"{kind}_all"),
            MARGIN,
            "points",
            presets=(),
        )
        for kind, name in KINDS.items()
    ),
)

TRANSFERS = question(
    "Does training on images transfer to videos?",
    Claim(
        "transfer",
        "paper",
        "Accuracy on directions in videos without video training, several images − one frame per example.",
        TRANSFER,
        ("image + images", "image + one frame"),
        transfer_gain("video_direction"),
        0.1,
        "points",
        presets=JUDGED,
    ),
    Claim(
        "transfer-accuracy",
        "learns",
        "Accuracy on directions in videos, trained on single and several images only.",
        TRANSFER,
        ("image + images", "blind"),
        number("image + images", "video_direction"),
        0.6,
        baseline=number("blind", "video_direction"),
        baseline_name="blind",
        presets=JUDGED,
    ),
    Claim(
        "video-training-adds",
        "learns",
        "Accuracy on directions in videos, trained on all types − on single and several images.",
        "",
        ("onevision", "image + images"),
        difference("onevision", "image + images", "video_direction"),
        0.0,
        "points",
        presets=(),
    ),
)

RETENTION = question(
    "Does the final mix keep the single-image score?",
    Claim(
        "mix-keeps-images",
        "paper",
        "Accuracy of the one model on single images after the mixed stage − before it.",
        PAPER,
        ("onevision",),
        after_mix,
        MARGIN,
        "points",
        expected="inconclusive",
        presets=JUDGED,
        paper_value=CARDS,
    ),
)

CLAIMS = on_splits((*EXACT, *LEARNS, *SPECIALISTS, *TRANSFERS, *RETENTION))
