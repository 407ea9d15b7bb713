"""Lesson 7's experiment, as `make lesson-7` runs it."""

from data.toybox.heldout import SPLIT_CONTENTS
from lessons.lesson_07_recipes.experiment.arms import ARMS, PRESETS
from lessons.lesson_07_recipes.experiment.claims import CLAIMS
from lessons.lesson_07_recipes.experiment.figures import CAPTIONS, draw
from shared.course.lesson import Lesson

LESSON = Lesson(
    number=7,
    arms=ARMS,
    claims=CLAIMS,
    headline="predicted-recipe",
    headline_caption="accuracy of the predicted recipe on questions about unseen color–shape combinations",
    figures=draw,
    captions=CAPTIONS,
    data_sets=dict.fromkeys(PRESETS, "toybox"),
    splits=SPLIT_CONTENTS | {"text": "new documents of seen combinations"},
)
