"""BLIP-2 in PyTorch, a room per part, to be read in this order.

config.py      what a Q-Former is made of
masks.py       one set of weights, three tasks: who sees whom
qformer.py     queries, text and image in one transformer
losses.py      contrast, matching with hard negatives, writing
retriever.py   stage 1: images and texts compared, matched, written
bridges.py     from an eye's tokens to a language model's: the Q-Former, and what it is compared with
blip2.py       stage 2: the whole, with a frozen language model
opt.py         the language model inside the public weights (arXiv:2205.01068)
huggingface.py, huggingface_names.py   the settings and names of published checkpoints
"""

from lessons.lesson_03_blip2.model.blip2 import Blip2, first_stage, second_stage
from lessons.lesson_03_blip2.model.bridges import LinearBridge, MeanPoolingBridge, QFormerBridge
from lessons.lesson_03_blip2.model.config import QFormerConfig, RetrieverConfig, opt_config
from lessons.lesson_03_blip2.model.masks import task_mask, visible
from lessons.lesson_03_blip2.model.opt import OPT
from lessons.lesson_03_blip2.model.qformer import QFormer
from lessons.lesson_03_blip2.model.retriever import FirstStage, Retriever

__all__ = [
    "OPT",
    "Blip2",
    "FirstStage",
    "LinearBridge",
    "MeanPoolingBridge",
    "QFormer",
    "QFormerBridge",
    "QFormerConfig",
    "Retriever",
    "RetrieverConfig",
    "first_stage",
    "opt_config",
    "second_stage",
    "task_mask",
    "visible",
]
