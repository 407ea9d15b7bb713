"""The course's decoder-only language model.

language_model.py  `LanguageModel`, its loss, and packing documents into rows
config_mapping.py  published settings ↔ our config
evaluation.py      cross-entropy on documents, accuracy on in-context episodes
toy_decoder.py     the architecture that is trained on the toy world, and its shipped checkpoint
"""

from lessons.lesson_00_foundations.decoder.model.config_mapping import parse_config, read_config, write_config
from lessons.lesson_00_foundations.decoder.model.language_model import (
    LanguageModel,
    has_previous_token,
    next_token_loss,
    pack_documents,
    weight_names,
)

__all__ = [
    "LanguageModel",
    "has_previous_token",
    "next_token_loss",
    "pack_documents",
    "parse_config",
    "read_config",
    "weight_names",
    "write_config",
]
