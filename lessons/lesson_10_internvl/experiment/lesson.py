"""Lesson 10's experiment, as `make lesson-10` runs it.

`cpu` trains a model on text and images from the start, on images alone, and on images first and text afterwards; trains
a reader of image sequences with V2PE. `full` adds δ = 1 in training, the router, mixed preference optimization and the
decoupled deployment.
"""

from lessons.lesson_10_internvl.experiment.arms import ARMS, PRESETS
from lessons.lesson_10_internvl.experiment.claims import CLAIMS
from lessons.lesson_10_internvl.experiment.data import SPLIT_CONTENTS
from lessons.lesson_10_internvl.experiment.figures import CAPTIONS, draw
from shared.course.lesson import Lesson

LESSON = Lesson(
    number=10,
    arms=ARMS,
    claims=CLAIMS,
    headline="mixing-keeps-text",
    headline_caption="bits per token by which training on images alone is worse on text than the mixture",
    figures=draw,
    captions=CAPTIONS,
    data_sets=dict.fromkeys(PRESETS, "toybox"),
    splits=SPLIT_CONTENTS,
)
