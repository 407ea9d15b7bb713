"""Lesson 8's experiment, as `make lesson-8` runs it.

Every trained arm starts from lesson 5's assistant. `cpu` trains one model on single images, several images and videos,
and compares it with models that never saw a video. `full` adds the specialists and more steps.
"""

from lessons.lesson_08_onevision.experiment.arms import ARMS, PRESETS
from lessons.lesson_08_onevision.experiment.claims import CLAIMS
from lessons.lesson_08_onevision.experiment.data import SPLIT_CONTENTS
from lessons.lesson_08_onevision.experiment.figures import CAPTIONS, draw
from shared.course.lesson import Lesson

LESSON = Lesson(
    number=8,
    arms=ARMS,
    claims=CLAIMS,
    headline="transfer",
    headline_caption="accuracy on questions about motion in videos, gained from several images without any video",
    figures=draw,
    captions=CAPTIONS,
    data_sets=dict.fromkeys(PRESETS, "toybox"),
    splits=SPLIT_CONTENTS,
)
