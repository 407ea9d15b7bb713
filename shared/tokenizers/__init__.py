"""Byte-level BPE tokenizers with special tokens, chat templates and streaming decoding."""

from shared.tokenizers.chat_template import ChatTemplate, EncodedConversation, Turn
from shared.tokenizers.pretokenize import PATTERNS
from shared.tokenizers.stream import TextStream
from shared.tokenizers.tokenizer import Tokenizer
from shared.tokenizers.tokenizer_json import load_tokenizer, save_tokenizer

__all__ = [
    "PATTERNS",
    "ChatTemplate",
    "EncodedConversation",
    "TextStream",
    "Tokenizer",
    "Turn",
    "load_tokenizer",
    "save_tokenizer",
]
