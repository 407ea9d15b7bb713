"""From text to the numbers a model reads, and back: byte-level BPE, special tokens, conversations."""

from shared.tokenizers.chat import ChatTemplate, Conversation, Turn
from shared.tokenizers.files import load_tokenizer, save_tokenizer
from shared.tokenizers.pretokenize import PATTERNS
from shared.tokenizers.stream import TextStream
from shared.tokenizers.tokenizer import Tokenizer

__all__ = [
    "PATTERNS",
    "ChatTemplate",
    "Conversation",
    "TextStream",
    "Tokenizer",
    "Turn",
    "load_tokenizer",
    "save_tokenizer",
]
