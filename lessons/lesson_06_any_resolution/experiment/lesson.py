"""Lesson 6's experiment, as `make lesson-6` runs it.

`cpu` trains readers of receipts at 128 tokens, at the native aspect ratio and as squares, and measures packing. `full`
adds AnyRes tiles, charts, budgets of 64, 128 and 256 tokens, and position schemes at unseen aspect ratios.
"""

from lessons.lesson_06_any_resolution.experiment.arms import ARMS, PRESETS
from lessons.lesson_06_any_resolution.experiment.claims import CLAIMS
from lessons.lesson_06_any_resolution.experiment.data import SPLIT_CONTENTS
from lessons.lesson_06_any_resolution.experiment.figures import CAPTIONS, draw
from shared.course.lesson import Lesson

LESSON = Lesson(
    number=6,
    arms=ARMS,
    claims=CLAIMS,
    headline="native-reads",
    headline_caption="accuracy of digits on receipts of 7-pixel text at 128 tokens",
    figures=draw,
    captions=CAPTIONS,
    data_sets=dict.fromkeys(PRESETS, "toybox"),
    splits=SPLIT_CONTENTS,
)
