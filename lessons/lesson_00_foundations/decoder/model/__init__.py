"""The course's decoder-only language model.

language_model.py  `LanguageModel`, its loss, and packing documents into rows
evaluation.py      cross-entropy on documents, accuracy on in-context episodes
toy_decoder.py     the architecture that is trained on the toy world, and its shipped checkpoint
"""

from lessons.lesson_00_foundations.decoder.model.language_model import (
    LanguageModel,
    config_from,
    next_token_loss,
    pack,
    predicted,
    read_config,
    table,
    write_config,
)

__all__ = [
    "LanguageModel",
    "config_from",
    "next_token_loss",
    "pack",
    "predicted",
    "read_config",
    "table",
    "write_config",
]
