"""BLIP-2 in PyTorch, one part per file, to be read in this order.

config.py      sizes of the Q-Former and the retrieval model
masks.py       the self-attention masks of the three tasks
qformer.py     the Q-Former: queries, text and image in one transformer
losses.py      contrastive, matching with hard negatives, generation
retriever.py   stage 1: the retrieval model and its training objective
connectors.py  from image features to tokens of a language model: the Q-Former, and two baselines
blip2.py       stage 2: the whole model, with a frozen language model
opt.py         the language model inside the public weights (arXiv:2205.01068)
config_mapping.py, weight_names.py   settings and weight names of published checkpoints
"""

from lessons.lesson_03_blip2.model.blip2 import Blip2, first_stage, second_stage
from lessons.lesson_03_blip2.model.config import QFormerConfig, RetrieverConfig
from lessons.lesson_03_blip2.model.connectors import (
    LinearConnector,
    MeanPoolingConnector,
    QFormerConnector,
    build_connector,
)
from lessons.lesson_03_blip2.model.masks import TASKS, task_mask, task_mask_matrix
from lessons.lesson_03_blip2.model.opt import OPT, opt_config
from lessons.lesson_03_blip2.model.qformer import QFormer
from lessons.lesson_03_blip2.model.retriever import FirstStage, Retriever

__all__ = [
    "OPT",
    "TASKS",
    "Blip2",
    "FirstStage",
    "LinearConnector",
    "MeanPoolingConnector",
    "QFormer",
    "QFormerConfig",
    "QFormerConnector",
    "Retriever",
    "RetrieverConfig",
    "build_connector",
    "first_stage",
    "opt_config",
    "second_stage",
    "task_mask",
    "task_mask_matrix",
]
