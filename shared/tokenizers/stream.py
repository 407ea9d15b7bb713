"""Text while it is being written."""

import codecs

from shared.tokenizers.tokenizer import Tokenizer


class TextStream:
    """The text of tokens that come one by one, as a model writes them.

    A token may end within a character. Its bytes wait for the rest, so that nobody sees half a character:
    what all calls have returned is at every moment the beginning of what `decode` gives for all tokens in the end.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True):
        self.tokenizer, self.skip_special_tokens = tokenizer, skip_special_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, number: int) -> str:
        """Return the text that this token completes, perhaps none. Raises ValueError for no token's number."""
        return self._decoder.decode(self.tokenizer.decode_bytes([number], skip_special_tokens=self.skip_special_tokens))

    def close(self) -> str:
        """Return what is left: "�" for a character that was never finished. The stream can then begin anew."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
