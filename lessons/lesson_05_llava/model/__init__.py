"""LLaVA in PyTorch. Read the files in this order:

projector.py       vision features → embeddings of the language model
llava.py           the model: features, splicing into the text, logits, answers
conversations.py   a conversation about an image as one row of token ids, and its loss mask
stages.py          stage 1 trains the projector, stage 2 also the language model
anyres.py          an image of any resolution as a grid of tiles
llava_next.py      LLaVA with tiles
config_mapping.py  published configs and weight names
"""

from lessons.lesson_05_llava.model.conversations import (
    encode_conversation,
    encode_interview,
    instruction_turns,
    loss_mask,
)
from lessons.lesson_05_llava.model.llava import Llava, select_features, splice_images
from lessons.lesson_05_llava.model.llava_next import LlavaNext, TiledImage
from lessons.lesson_05_llava.model.projector import Projector
from lessons.lesson_05_llava.model.stages import both_stages, first_stage, second_stage

__all__ = [
    "Llava",
    "LlavaNext",
    "Projector",
    "TiledImage",
    "both_stages",
    "encode_conversation",
    "encode_interview",
    "first_stage",
    "instruction_turns",
    "loss_mask",
    "second_stage",
    "select_features",
    "splice_images",
]
