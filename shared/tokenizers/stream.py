"""Decode tokens to text while a model generates them."""

import codecs

from shared.tokenizers.tokenizer import Tokenizer


class TextStream:
    """Decode tokens one by one, as a model generates them.

    A token may end in the middle of a character. Its bytes are held back until the character is complete. At every
    moment, the concatenated return values are a prefix of `tokenizer.decode` of all tokens.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True):
        self.tokenizer, self.skip_special_tokens = tokenizer, skip_special_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, token_id: int) -> str:
        """Return the text that this token completes, which may be empty. Raises ValueError for an unknown token id."""
        return self._decoder.decode(
            self.tokenizer.decode_bytes([token_id], skip_special_tokens=self.skip_special_tokens)
        )

    def close(self) -> str:
        """Return the rest: "�" for an incomplete character, else "". The stream can be used again afterwards."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
