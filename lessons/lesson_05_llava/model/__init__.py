"""LLaVA in PyTorch, a room per part, to be read in this order.

features.py     what the language model is shown of an image
projector.py    from an eye's vectors to a language model's
llava.py        the whole
sequences.py    a conversation about an image as one row of tokens, and which of them are learned
stages.py       first the projector, then the language model too
anyres.py       an image of any resolution in tiles
llava_next.py   a LLaVA that looks at tiles
huggingface.py  the settings and names of published checkpoints
"""

from lessons.lesson_05_llava.model.features import image_features
from lessons.lesson_05_llava.model.llava import Llava
from lessons.lesson_05_llava.model.llava_next import LlavaNext, Tiled
from lessons.lesson_05_llava.model.projector import Projector
from lessons.lesson_05_llava.model.sequences import IMAGE, batch_of, conversation, instruction, interview, learned
from lessons.lesson_05_llava.model.stages import both_stages, first_stage, second_stage

__all__ = [
    "IMAGE",
    "Llava",
    "LlavaNext",
    "Projector",
    "Tiled",
    "batch_of",
    "both_stages",
    "conversation",
    "first_stage",
    "image_features",
    "instruction",
    "interview",
    "learned",
    "second_stage",
]
