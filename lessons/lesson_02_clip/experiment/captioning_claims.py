"""The claims of lesson 2 about the captioning loss: linear probes of patches, with and without it."""

from shared.course.claims import difference
from shared.course.lesson import Claim, question

LOCATIONS = question(
    "Does a captioning loss keep locations?",
    Claim(
        "captioning-keeps-locations",
        "paper",
        "Accuracy of linear probes of patches on unseen combinations (mean of four attributes), with a captioning "
        "loss − "
        "without.",
        "arXiv:2502.14786, sections 2.2 and 3.4",
        ("with captions", "without captions"),
        difference("with captions", "without captions", "patch_unseen"),
        0.05,
        "points",
    ),
    Claim(
        "captioning-keeps-shapes",
        "paper",
        "Accuracy of a linear probe of patches for the shape, on seen combinations, with a captioning loss − without.",
        "arXiv:2502.14786, sections 2.2 and 3.4",
        ("with captions", "without captions"),
        difference("with captions", "without captions", "patch_shape_seen"),
        0.05,
        "points",
    ),
    Claim(
        "captioning-and-zero-shot",
        "paper",
        "Zero-shot accuracy on single objects of unseen combinations, with a captioning loss − without.",
        "arXiv:2502.14786, section 3.1",
        ("with captions", "without captions"),
        difference("with captions", "without captions", "zero_shot"),
        0.0,
        "points",
        presets=(),
    ),
)
