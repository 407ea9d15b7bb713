"""Lesson 11's experiment, as `make lesson-11` runs it.

`cpu` measures the shipped image tokenizer and decoder, and trains short decoders with and without QK-norm. `full` adds
image tokenizers of all sizes, more learning rates, and a jointly trained decoder beside separate ones.
"""

from lessons.lesson_11_chameleon.experiment.arms import ARMS, PRESETS
from lessons.lesson_11_chameleon.experiment.claims import CLAIMS
from lessons.lesson_11_chameleon.experiment.data import SPLIT_CONTENTS
from lessons.lesson_11_chameleon.experiment.figures import CAPTIONS, draw
from shared.course.lesson import Lesson

LESSON = Lesson(
    number=11,
    arms=ARMS,
    claims=CLAIMS,
    headline="draws-color",
    headline_caption="drawings of unseen combinations with the requested color",
    figures=draw,
    captions=CAPTIONS,
    data_sets=dict.fromkeys(PRESETS, "toybox"),
    splits=SPLIT_CONTENTS,
)
