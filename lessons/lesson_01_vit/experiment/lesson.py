"""Lesson 1's experiment, as `make lesson-1` runs it."""

from lessons.lesson_01_vit.experiment.arms import ARMS
from lessons.lesson_01_vit.experiment.claims import CLAIMS
from lessons.lesson_01_vit.experiment.figures import CAPTIONS, draw_figures
from shared.course.lesson import Lesson

LESSON = Lesson(
    number=1,
    arms=ARMS,
    claims=CLAIMS,
    headline="held-out-digits",
    headline_caption="accuracy on held-out handwritten digits",
    figures=draw_figures,
    captions=CAPTIONS,
    data_sets={"smoke": "digits", "cpu": "digits", "full": "digits", "gpu": "cifar10"},
    other_data_sets=("fashion_mnist", "folder:PATH"),
    splits={
        "training": "1,438 digits",
        "held-out": "a random fifth of the digits",
        "other writers": "the last fifth of the digits",
        "CIFAR-10 test": "10,000 images",
    },
)
