"""Texts at which an answer ends, found also where they extend over several tokens."""

from collections.abc import Sequence


class StopSequences:
    """End a text, while it is generated, before the sequence that is complete first, and the longest of those.

    So the text does not depend on how it is cut into tokens.

    reached  whether the text has ended
    """

    def __init__(self, sequences: Sequence[str]):
        self.sequences, self.reached = tuple(sequences), False
        self._held = ""  # the end of the text so far, where a sequence may have begun

    def write(self, text: str) -> str:
        """Append a text; return what can be sent: everything that is part of no sequence, whatever follows."""
        text = self._held + text
        places = [(start + len(each), start) for each in self.sequences if (start := text.find(each)) >= 0]
        if places:
            self._held, self.reached = "", True
            _, start = min(places)
            return text[:start]
        held = max((self._overlap(text, each) for each in self.sequences), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def close(self) -> str:
        """Return the text that was held back, at the end of the answer."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, sequence: str) -> int:
        """Return the length of the longest end of the text that the sequence begins with."""
        longest = min(len(text), len(sequence) - 1)
        return next((length for length in range(longest, 0, -1) if text.endswith(sequence[:length])), 0)
