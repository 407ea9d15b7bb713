"""LLaVA-OneVision in PyTorch. Read the files in this order:

pooling.py         bilinear pooling of a grid of features
tiling.py          Higher-AnyRes: many tiles, few tokens; several images and videos
token_budget.py    which tiles, frames and pooling fit into a context
sequence.py        one sequence of text, images and videos
onevision.py       the model
curriculum.py      the four stages of training, and a planner
preprocessing.py   photographs and video frames as tiles, as the published image processor computes them
config_mapping.py  published configs and weight names
"""

from lessons.lesson_08_onevision.model.config_mapping import OneVisionConfig
from lessons.lesson_08_onevision.model.curriculum import ONEVISION, CurriculumStage, PlannedStage, plan_curriculum
from lessons.lesson_08_onevision.model.onevision import EncodedImage, EncodedVideo, LlavaOneVision
from lessons.lesson_08_onevision.model.pooling import pool_grid
from lessons.lesson_08_onevision.model.preprocessing import OneVisionPreprocessing
from lessons.lesson_08_onevision.model.sequence import (
    OneVisionSequence,
    PlaceholderIds,
    build_sequence,
    encode_visual_conversation,
    visual_token_counts,
)
from lessons.lesson_08_onevision.model.tiling import PINPOINTS, VisualLayout
from lessons.lesson_08_onevision.model.token_budget import (
    Context,
    ImageInput,
    ImagePlan,
    VideoInput,
    VideoPlan,
    solve_image,
    solve_images,
    solve_sequence,
    solve_video,
)

__all__ = [
    "ONEVISION",
    "PINPOINTS",
    "Context",
    "CurriculumStage",
    "EncodedImage",
    "EncodedVideo",
    "ImageInput",
    "ImagePlan",
    "LlavaOneVision",
    "OneVisionConfig",
    "OneVisionPreprocessing",
    "OneVisionSequence",
    "PlaceholderIds",
    "PlannedStage",
    "VideoInput",
    "VideoPlan",
    "VisualLayout",
    "build_sequence",
    "encode_visual_conversation",
    "plan_curriculum",
    "pool_grid",
    "solve_image",
    "solve_images",
    "solve_sequence",
    "solve_video",
    "visual_token_counts",
]
