"""The order in which a model learns to answer questions about scenes: settings of interviews, from easy to hard.

To answer "what color is the star?" a model must find the star and read its color. From interviews as they are, it
learns this late: in most scenes the objects share attributes, so guessing among the few colors of the scene is nearly
as good. Therefore training starts with two objects that differ in color and in shape. Other references, places,
comparisons of two objects, all question types and a third object follow. The types that are learned last are asked
most.
"""

from dataclasses import replace

from data.toybox.interviews import InterviewSetting
from data.toybox.language import ATTRIBUTES
from data.toybox.questions import QUESTION_TYPES

LEARNED_LAST = ("relation", "relation", "same", "same", "nearest", "count", "more")
"""Question types that are asked more often in the last stage, once more for each time that they stand here."""
# The color stands next to the shape in a caption, so it is found first. Then the shape alone names an object.
COLORS = InterviewSetting(
    (2, 2),
    (("colors", 1),),
    ("color", "shape"),
    references=("color", "shape"),
    questions=(1, 3),
    distinct=1,
    described=0,
    unanswerable=0,
)
BY_SHAPE = replace(
    COLORS, levels=(("attributes", 1),), question_types=("color", "size", "texture"), references=("shape",)
)
REFERENCES = replace(
    BY_SHAPE, question_types=("color", "shape", "size", "texture"), references=ATTRIBUTES, questions=(2, 4)
)
PLACES = InterviewSetting(
    (2, 2),
    (("colors", 1), ("attributes", 2), ("places", 7)),
    questions=(4, 8),
    distinct=0.9,
    unanswerable=0.2,
)
# Objects that always differ in color would give "are they of the same color?" one answer.
COMPARISONS = replace(
    PLACES,
    levels=(("attributes", 1), ("places", 3)),
    question_types=("color", "size", "place", "larger", "same", "same", "relation", "relation"),
    distinct=0.1,
    unanswerable=0,
)
EVERYTHING = InterviewSetting(
    (1, 3),
    (("colors", 1), ("attributes", 2), ("places", 12)),
    question_types=QUESTION_TYPES + LEARNED_LAST,
    questions=(6, 12),
    distinct=0.2,
    unanswerable=0.3,
)
