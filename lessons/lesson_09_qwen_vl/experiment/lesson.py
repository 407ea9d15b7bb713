"""Lesson 9's experiment, as `make lesson-9` runs it.

`cpu` trains readers of short clips with M-RoPE and with one-dimensional positions, tests them on longer clips, trains a
reader that writes boxes, and measures frame sampling. `full` adds language models from scratch, other frequencies,
seconds at an unseen frame rate and two objects.
"""

from lessons.lesson_09_qwen_vl.experiment.arms import ARMS, PRESETS
from lessons.lesson_09_qwen_vl.experiment.claims import CLAIMS
from lessons.lesson_09_qwen_vl.experiment.data import SPLIT_CONTENTS
from lessons.lesson_09_qwen_vl.experiment.figures import CAPTIONS, draw
from shared.course.lesson import Lesson

LESSON = Lesson(
    number=9,
    arms=ARMS,
    claims=CLAIMS,
    headline="less-lost-4x",
    headline_caption="points that M-RoPE loses less than 1-D positions at four times the longest trained clip",
    figures=draw,
    captions=CAPTIONS,
    data_sets=dict.fromkeys(PRESETS, "toybox"),
    splits=SPLIT_CONTENTS,
)
