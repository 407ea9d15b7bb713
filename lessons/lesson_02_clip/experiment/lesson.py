"""Lesson 2's experiment, as `make lesson-2` runs it."""

from data.toybox.heldout import SPLIT_CONTENTS as SPLITS
from lessons.lesson_02_clip.experiment.arms import ARMS
from lessons.lesson_02_clip.experiment.claims import CLAIMS, REAL_IMAGES
from lessons.lesson_02_clip.experiment.figures import CAPTIONS, draw_figures
from shared.course.lesson import Lesson
from shared.course.splits import on_splits

LESSON = Lesson(
    number=2,
    arms=ARMS,
    claims=(
        *on_splits(
            CLAIMS,
            others={"chance": "", "zero-shot-seen": "validation", "captioning-keeps-shapes": "validation"},
        ),
        *on_splits(
            REAL_IMAGES, chosen_on="", measured_on="Fashion-MNIST test", others={"photographs": "held-out photographs"}
        ),
    ),
    headline="zero-shot",
    headline_caption="zero-shot accuracy on unseen combinations",
    figures=draw_figures,
    captions=CAPTIONS,
    data_sets={"smoke": "toybox", "cpu": "toybox", "full": "toybox", "gpu": "flickr8k"},
    other_data_sets=("fashion_mnist",),
    splits=SPLITS | {"Fashion-MNIST test": "10,000 images", "held-out photographs": "Flickr8k"},
)
