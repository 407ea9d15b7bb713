"""The decoder that is pretrained on the toy world: its architecture, and the shipped checkpoint."""

from dataclasses import replace
from typing import Any

from lessons.lesson_00_foundations.decoder.model.language_model import LanguageModel
from shared.course.checkpoint import checkpoint_folder
from shared.tokenizers import Tokenizer, load_tokenizer
from shared.transformer import DecoderConfig

CONTEXT_LENGTH = 112
"""Tokens per packed row in training."""
ROTARY_BASE = 100.0
"""Rotary base for short texts: the slowest pair turns once in about 350 tokens. At Llama's 500,000 most pairs would
hardly turn."""


def toy_decoder(vocab_size: int, **sizes: Any) -> LanguageModel:
    """Build an untrained decoder of width 64 with three blocks, four query heads and two key-value heads.

    `sizes` replaces these values by name.
    """
    config = DecoderConfig(
        vocab_size, width=64, depth=3, heads=4, kv_heads=2, mlp_dim=160, rotary_base=ROTARY_BASE, tied=True
    )
    return LanguageModel(replace(config, **sizes))


def load_language_model() -> tuple[LanguageModel, Tokenizer]:
    """Load the shipped decoder, frozen, and its tokenizer. Raises CourseError when its checkpoint is missing."""
    folder = checkpoint_folder("lesson_00_decoder")
    return LanguageModel.from_pretrained(folder).requires_grad_(False), load_tokenizer(folder / "tokenizer.json")
